"""`.moeref`: what a reference answered, so that its weights are not needed again.

docs/reference/moeref.md describes the format. One chunk is in memory at a time, in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moestro.closing import Closing
from moestro.errors import ModelError
from moestro.routing.sample import LayerSample, check_sample
from moestro.verify.container import Part, PartReader, PartWriter, corrupt
from moestro.verify.corpus import Chunk
from moestro.verify.sketch import Sketch

FORMAT = "moestro reference"
VERSION = 1
MOST_CHUNK_TOKENS = 1 << 20
MOST_CHUNKS = 100_000

_NAME = re.compile(r"[a-z][a-z0-9-]{0,60}")
_SKETCH = {
    "ends": np.uint32,
    "log_p": np.float32,
    "tail_ends": np.uint32,
    "tail_log_p": np.float32,
    "tail_log_mass": np.float32,
    "target_log_p": np.float32,
}


@dataclass(frozen=True, slots=True, eq=False)
class StoredChunk:
    """One chunk: its tokens, and what the reference made of it. The positions `first_scored`,
    `first_scored` + 1 … are those of the rows of `sketch`."""

    chunk: Chunk
    first_scored: int
    sketch: Sketch
    routers: Mapping[int, LayerSample]


class ReferenceWriter:
    """A context manager: what is not finished when it ends leaves no file.

    Raises:
        MoestroError: from every method, where the disk is full or not writable.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """`header` is anything that JSON can hold."""
        self._chunks = 0
        self._names: list[str] = []
        self._parts = PartWriter(path)
        try:
            facts = {"format": FORMAT, "version": VERSION, "header": dict(header)}
            self._parts.add("header", facts, {})
        except BaseException:
            self._parts.abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts.abandon()

    def add_chunk(
        self,
        chunk: Chunk,
        first_scored: int,
        sketch: Sketch,
        routers: Mapping[int, LayerSample],
    ) -> None:
        """`routers` by number of the block; empty for a dense model."""
        facts = {
            "index": chunk.index,
            "domain": chunk.domain,
            "first_scored": first_scored,
            "vocabulary": sketch.vocabulary,
            "routers": list(routers),
        }
        arrays: dict[str, NDArray[Any]] = {"tokens": _narrow(chunk.tokens, sketch.vocabulary)}
        for name, kind in _SKETCH.items():
            arrays[f"sketch.{name}"] = np.asarray(getattr(sketch, name), kind)
        arrays["sketch.ids"] = _narrow(sketch.ids, sketch.vocabulary)
        arrays["sketch.tail_ids"] = _narrow(sketch.tail_ids, sketch.vocabulary)
        for block, router in routers.items():
            arrays[f"router.{block}.chosen"] = _narrow(router.chosen, router.logits.shape[1])
            arrays[f"router.{block}.weights"] = _halved(router.weights)
            arrays[f"router.{block}.logits"] = _halved(router.logits)
            arrays[f"router.{block}.rows"] = _narrow(router.rows, max(len(router.chosen), 1))
        self._parts.add(_chunk_name(self._chunks), facts, arrays)
        self._chunks += 1

    def add_arrays(
        self, name: str, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Anything else: `meta` that JSON can hold, and arrays, under a name of its own."""
        if not _NAME.fullmatch(name) or name in self._names:
            raise ValueError(f"“{name}” cannot name a part, or does already")
        self._parts.add(f"arrays/{name}", meta, arrays)
        self._names.append(name)

    def finish(self, extra: Mapping[str, Any]) -> None:
        """Gives the file its name. `extra` holds what is known only at the end."""
        facts = {"chunks": self._chunks, "arrays": self._names, "extra": dict(extra)}
        self._parts.add("end", facts, {})
        self._parts.finish()


class ReferenceFile(Closing):
    """A stored reference, read part by part. A context manager, or `close()` it.

    `header` and `extra` are what the writer was given; `names` those of `arrays`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts = PartReader(path)
        try:
            self.header, self.extra, self.chunk_count, self.names = self._read_frame()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """
        Raises:
            ModelError: no such file, not a reference file, cut off or damaged
                (`reference-corrupt`), or one of another version (`reference-version`).
        """
        return cls(path)

    def close(self) -> None:
        self._parts.close()

    def chunks(self) -> Iterator[StoredChunk]:
        """In the order in which they were written; may be called again.

        Raises:
            ModelError: a chunk is damaged or contradicts itself (`reference-corrupt`).
        """
        for number in range(self.chunk_count):
            part = self._parts.read(_chunk_name(number))
            try:
                chunk = _chunk(part)
            except (KeyError, TypeError, ValueError, ModelError) as error:
                raise corrupt(self.path, f"chunk {number} contradicts itself") from error
            yield chunk

    def arrays(self, name: str) -> Part:
        """What `add_arrays` stored: facts and arrays, for content that nobody vouches for.

        Raises:
            ModelError: there is nothing of that name, or it is damaged (`reference-corrupt`).
        """
        return self._parts.read(f"arrays/{name}")

    def _read_frame(self) -> tuple[dict[str, Any], dict[str, Any], int, tuple[str, ...]]:
        start, _ = self._parts.read("header")
        if start.get("format") != FORMAT:
            raise corrupt(self.path, "it is some other kind of file")
        if start.get("version") != VERSION:
            raise ModelError(
                f"{self.path.name} has version {str(start.get('version'))[:20]} of the format; "
                f"this moestro reads version {VERSION}.",
                hint="Use the moestro that wrote it, or make it again with this one.",
                code="reference-version",
            )
        end, _ = self._parts.read("end")
        header, extra = start.get("header"), end.get("extra")
        chunks, names = end.get("chunks"), end.get("arrays")
        if (
            not isinstance(header, dict)
            or not isinstance(extra, dict)
            or type(chunks) is not int
            or not 0 <= chunks <= MOST_CHUNKS
            or not isinstance(names, list)
            or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names)
        ):
            raise corrupt(self.path, "it does not say what it holds")
        wanted = {_chunk_name(number) for number in range(chunks)}
        wanted |= {f"arrays/{name}" for name in names}
        if not wanted <= set(self._parts.names):
            raise corrupt(self.path, "parts of it are missing")
        return header, extra, chunks, tuple(names)


def _chunk_name(number: int) -> str:
    return f"chunks/{number:06}"


def _narrow(values: NDArray[Any], below: int) -> NDArray[Any]:
    """The values, all at least 0 and less than `below`, in the fewest bytes."""
    if values.size and (values.min() < 0 or values.max() >= below):
        raise ValueError(f"a number that is not from 0 to {below - 1}")
    kind = np.uint8 if below <= 1 << 8 else np.uint16 if below <= 1 << 16 else np.uint32
    return values.astype(kind)


def _halved(values: NDArray[Any]) -> NDArray[Any]:
    """As float16, unless a finite value does not fit into it."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    fits = bool((np.isfinite(half) | ~np.isfinite(values)).all())
    return half if fits else values.astype(np.float32)


def _chunk(part: Part) -> StoredChunk:
    facts, arrays = part
    vocabulary = _whole(facts["vocabulary"], 1 << 31)
    tokens = _ids(arrays["tokens"], vocabulary)
    first_scored = _whole(facts["first_scored"], MOST_CHUNK_TOKENS)
    _require(0 < len(tokens) <= MOST_CHUNK_TOKENS)
    domain = facts["domain"]
    _require(isinstance(domain, str) and len(domain) <= 255)
    sketch = _sketch(arrays, vocabulary)
    _require(first_scored + len(sketch) < len(tokens))
    blocks = facts["routers"]
    _require(isinstance(blocks, list) and len(set(blocks)) == len(blocks))
    return StoredChunk(
        Chunk(_whole(facts["index"], 1 << 31), domain, tokens.astype(np.int32)),
        first_scored,
        sketch,
        {_whole(block, 1 << 16): _router(arrays, block, len(tokens)) for block in blocks},
    )


def _sketch(arrays: Mapping[str, NDArray[Any]], vocabulary: int) -> Sketch:
    found = {name: arrays[f"sketch.{name}"] for name in _SKETCH}
    for name, kind in _SKETCH.items():
        _require(found[name].dtype == kind and found[name].ndim == 1)
    ids = _ids(arrays["sketch.ids"], vocabulary).astype(np.uint32)
    tail_ids = _ids(arrays["sketch.tail_ids"], vocabulary).astype(np.uint32)
    rows = len(found["ends"])
    _require(all(len(found[name]) == rows for name in _SKETCH if not name.endswith("log_p")))
    _require(len(found["target_log_p"]) == rows and len(found["tail_log_mass"]) == rows)
    for ends, values in (("ends", "log_p"), ("tail_ends", "tail_log_p")):
        _require(bool((np.diff(found[ends].astype(np.int64), prepend=0) >= 0).all()))
        _require((int(found[ends][-1]) if rows else 0) == len(found[values]))
    _require(len(ids) == len(found["log_p"]) and len(tail_ids) == len(found["tail_log_p"]))
    return Sketch(vocabulary=vocabulary, ids=ids, tail_ids=tail_ids, **found)


def _router(arrays: Mapping[str, NDArray[Any]], block: int, tokens: int) -> LayerSample:
    chosen, weights, logits, rows = (
        arrays[f"router.{block}.{name}"] for name in ("chosen", "weights", "logits", "rows")
    )
    _require(chosen.ndim == 2 and logits.ndim == 2 and rows.ndim == 1 and len(chosen) <= tokens)
    _require(all(array.dtype in (np.float16, np.float32) for array in (weights, logits)))
    _require(all(array.dtype.kind == "u" for array in (chosen, rows)))
    given = LayerSample(
        chosen.astype(np.int32),
        weights.astype(np.float32),
        logits.astype(np.float32),
        rows.astype(np.int64),
    )
    check_sample(block, given, logits.shape[1], chosen.shape[1])
    return given


def _ids(array: NDArray[Any], vocabulary: int) -> NDArray[Any]:
    _require(array.dtype.kind == "u" and array.ndim == 1)
    _require(not array.size or int(array.max()) < vocabulary)
    return array


def _whole(value: Any, below: int) -> int:
    _require(type(value) is int and 0 <= value < below)
    return int(value)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("a part of a reference file contradicts itself")
