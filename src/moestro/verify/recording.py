"""A reference that was run once and kept: what its `.moeref` file holds, as a side to compare with.

Where both models do not fit into memory together, or the reference's weights are elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro import __version__
from moestro.closing import Closing
from moestro.engine.llama_cpp.capture import Capture, Vocabulary
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.verify.container import corrupt
from moestro.verify.corpus import CHUNK_TOKENS, Chunk, Passage, digest, windows
from moestro.verify.fingerprint import Fingerprint, take_fingerprint
from moestro.verify.reference_file import ReferenceFile, ReferenceWriter
from moestro.verify.sides import (
    FIRST_SCORED,
    Compare,
    Pass,
    RoutedExperts,
    chunks_of,
    fed,
    generate,
    prompts_of,
    sampled,
    scored_logits,
    scored_targets,
)
from moestro.verify.sketch import Sketch, compare_sketch, sketch_logits
from moestro.verify.subject import Options, Progress, Subject, reading
from moestro.verify.verdict import Compared

_MOST_PROMPTS = 4096
_MOST_TOKENS = 1 << 16


class Recording(Closing):
    """A stored reference, opened. A context manager, or `close()` it.

    Raises:
        ModelError: no reference file, or a damaged one, or one of another version.
    """

    def __init__(self, path: Path) -> None:
        self._file = ReferenceFile.open(path)
        try:
            header = self._file.header
            self.compared = Compared.from_json(header["model"])
            self.vocabulary = _vocabulary(header["vocabulary"])
            self.experts = _experts(header["experts"])
            if (header["chunk_tokens"], header["first_scored"]) != (CHUNK_TOKENS, FIRST_SCORED):
                raise ValueError("chunks of another length")
            facts, arrays = self._file.arrays("generations")
            self.generated_tokens = _whole(facts["tokens"], _MOST_TOKENS)
            self.prompts = _unpacked(arrays, "prompt", self.vocabulary.tokens)
            self._made = _unpacked(arrays, "made", self.vocabulary.tokens)
            if len(self.prompts) != len(self._made) or not all(self.prompts):
                raise ValueError("prompts without continuations")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.close()
            raise corrupt(path, "its description contradicts itself") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def chunks(self) -> int:
        return self._file.chunk_count

    def fingerprint(self) -> Fingerprint:
        """
        Raises:
            ModelError: it is damaged.
        """
        return Fingerprint.from_arrays(*self._file.arrays("fingerprint"))

    def passes(self) -> Iterator[Pass]:
        """
        Raises:
            ModelError: a chunk is damaged, or is not one of the model that the file describes.
        """
        for stored in self._file.chunks():
            chunk, sketch = stored.chunk, stored.sketch
            if (
                len(chunk.tokens) != CHUNK_TOKENS
                or stored.first_scored != FIRST_SCORED
                or sketch.vocabulary != self.vocabulary.tokens
                or len(sketch) != CHUNK_TOKENS - FIRST_SCORED - 1
            ):
                raise corrupt(self._file.path, "a chunk is not like the others")
            yield Pass(chunk, _estimated(sketch, scored_targets(chunk)), stored.routers)

    def generations(self) -> list[list[int]]:
        return self._made


def _estimated(sketch: Sketch, targets: NDArray[np.int32]) -> Compare:
    return lambda candidate: compare_sketch(sketch, candidate, targets)


def record(
    reference: Subject,
    passages: Sequence[Passage],
    path: Path,
    options: Options,
    progress: Progress = lambda _what, _done, _all: None,
) -> None:
    """Runs `reference` alone and keeps in the file `path` what a comparison needs of it.

    Raises:
        MoestroError: the model cannot be read or run, the text is too short, or the file cannot be
            written.
    """
    passages = windows(passages, options.tokens)
    fingerprint = take_fingerprint(reference.model, progress=reading(progress, reference.name))
    progress(f"loading {reference.name}", 0, 0)
    with Capture(reference.model, reference.settings) as capture:
        chunks = chunks_of(capture, passages, options)
        prompts = prompts_of(chunks, options.generations, capture.vocabulary)
        with ReferenceWriter(path, _header(reference, fingerprint, capture, chunks)) as writer:
            for number, chunk in enumerate(chunks):
                progress(f"recording {reference.name}", number, len(chunks))
                captured = capture.chunk(fed(chunk, capture.vocabulary), FIRST_SCORED)
                sketch = sketch_logits(
                    scored_logits(captured), scored_targets(chunk), seed=chunk.index
                )
                writer.add_chunk(chunk, FIRST_SCORED, sketch, sampled(captured))
            progress("continuing texts", 0, 1)
            made = generate(capture, prompts, options.generated_tokens)
            lists = {**_packed("prompt", prompts), **_packed("made", made)}
            writer.add_arrays("generations", {"tokens": options.generated_tokens}, lists)
            writer.add_arrays("fingerprint", *fingerprint.to_arrays())
            writer.finish({})


def _header(
    reference: Subject, fingerprint: Fingerprint, capture: Capture, chunks: Sequence[Chunk]
) -> dict[str, Any]:
    experts, vocabulary = RoutedExperts.of(reference.model), capture.vocabulary
    return {
        "model": reference.compared(fingerprint).to_json(),
        "vocabulary": asdict(vocabulary),
        "experts": asdict(experts) if experts is not None else None,
        "chunks": len(chunks),
        "chunk_tokens": CHUNK_TOKENS,
        "first_scored": FIRST_SCORED,
        "text_digest": digest(chunks),
        "engine": EXPECTED_VERSION,
        "moestro": __version__,
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _packed(name: str, lists: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
    """Lists of tokens as one array and the places where each ends."""
    ends = np.cumsum([len(one) for one in lists], dtype=np.uint32)
    tokens = np.asarray([token for one in lists for token in one], dtype=np.uint32)
    return {f"{name}_tokens": tokens, f"{name}_ends": ends}


def _unpacked(arrays: Mapping[str, NDArray[Any]], name: str, vocabulary: int) -> list[list[int]]:
    tokens, ends = arrays[f"{name}_tokens"], arrays[f"{name}_ends"]
    if (
        tokens.dtype != np.uint32
        or ends.dtype != np.uint32
        or tokens.ndim != 1
        or ends.ndim != 1
        or len(ends) > _MOST_PROMPTS
        or (int(ends[-1]) if len(ends) else 0) != len(tokens)
        or bool((np.diff(ends.astype(np.int64), prepend=0) < 0).any())
        or (tokens.size and int(tokens.max()) >= vocabulary)
    ):
        raise ValueError("lists of tokens that contradict themselves")
    bounds = [0, *(int(end) for end in ends)]
    return [tokens[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def _vocabulary(data: Mapping[str, Any]) -> Vocabulary:
    tokens, bos = _whole(data["tokens"], 1 << 31), data["bos"]
    add_bos = data["add_bos"]
    if type(add_bos) is not bool or (add_bos and bos is None):
        raise ValueError("a vocabulary that contradicts itself")
    return Vocabulary(tokens, None if bos is None else _whole(bos, tokens), add_bos)


def _experts(data: Mapping[str, Any] | None) -> RoutedExperts | None:
    if data is None:
        return None
    count, used, gating = data["count"], data["used"], data["gating"]
    if not 0 < _whole(used, 1 << 16) <= _whole(count, 1 << 16) or not isinstance(gating, str):
        raise ValueError("experts that contradict themselves")
    return RoutedExperts(count, used, gating)


def _whole(value: object, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise ValueError("a number out of its range")
    return value
