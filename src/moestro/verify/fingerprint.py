"""A model file in a few megabytes: what its keys say and what its weights are like.

Enough to compare another file of the same model with it, without its weights: so it can lie in a
reference file beside a published model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.engine.llama_cpp.row_samples import (
    MAX_UNITS,
    MAX_UNITS_OF_MODEL,
    NARROW,
    WIDE,
    row_sample,
)
from moestro.engine.llama_cpp.weights_probe import Progress, local_headers, probe_weights
from moestro.errors import ModelCorrupt
from moestro.model.digests import Plain, plain_values
from moestro.model.ggml_types import BY_NAME
from moestro.model.roles import Role
from moestro.model.source import FileSource
from moestro.model.spec import ModelSpec

MAX_TENSORS = 1 << 16
MAX_VALUES = 1 << 14
_MAX_TEXT = 512
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPLATES = "tokenizer.chat_template"


@dataclass(frozen=True, slots=True)
class TensorPrint:
    """One tensor. `shape` starts with the row length. `norms` f32 [units] and `sketch` f16
    [units, width] are those of `weights_probe.ProbedTensor`: of tensors of experts a unit is an
    expert, of routers the row of one, of others a row of a few that stand for all."""

    name: str
    type: str
    shape: tuple[int, ...]
    role: Role
    layer: int | None
    bad_rows: int
    first_bad_row: int | None
    norms: NDArray[np.float32]
    sketch: NDArray[np.float16]


@dataclass(frozen=True)
class Fingerprint:
    """`name` is a file's name, for sentences. `keys` are the architecture's own hyperparameters,
    without its prefix; `tokenizer` the tokenizer's, without `tokenizer.`. `digests` are the sha256
    of the files. `gating` as in `Experts`; unknown is None."""

    name: str
    architecture: str
    digests: tuple[str, ...]
    keys: Mapping[str, Plain]
    tokenizer: Mapping[str, Plain]
    vocabulary: int | None
    gating: str | None
    mtp_layers: int
    tensors: tuple[TensorPrint, ...]

    @cached_property
    def by_name(self) -> dict[str, TensorPrint]:
        return {tensor.name: tensor for tensor in self.tensors}

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What JSON can hold, and what it cannot: `norms` f32 [units of all tensors], `narrow` and
        `wide` f16, [units, 32] and [units, 64]."""
        facts = {
            "name": self.name,
            "architecture": self.architecture,
            "digests": list(self.digests),
            "keys": _listed(self.keys),
            "tokenizer": _listed(self.tokenizer),
            "vocabulary": self.vocabulary,
            "gating": self.gating,
            "mtp_layers": self.mtp_layers,
            "tensors": [
                [t.name, t.type, list(t.shape), str(t.role), t.layer, t.bad_rows, t.first_bad_row]
                for t in self.tensors
            ],
        }
        empty = np.empty(0, dtype=np.float32)
        arrays: dict[str, NDArray[Any]] = {
            "norms": np.concatenate([empty, *(tensor.norms for tensor in self.tensors)])
        }
        for name, width in (("narrow", NARROW), ("wide", WIDE)):
            own = [t.sketch for t in self.tensors if t.sketch.shape[1] == width]
            arrays[name] = np.concatenate([np.empty((0, width), dtype=np.float16), *own])
        return facts, arrays

    @classmethod
    def from_arrays(
        cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Fingerprint:
        """The reverse of `to_arrays`, for content that nobody vouches for.

        Raises:
            ModelCorrupt: it was not written by `to_arrays`.
        """
        try:
            return _read(facts, arrays)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelCorrupt(
                "The description of the reference's weights is damaged.",
                hint="Get the reference file again, or make a new one from the reference itself.",
            ) from error


def take_fingerprint(
    spec: ModelSpec, *, progress: Progress = lambda _done, _all: None
) -> Fingerprint:
    """Reads the model's files whole, in a child process.

    Raises:
        ModelError: they are not GGUF files of this machine, or have changed since `spec` was read.
        EngineError: the engine cannot be used, or its process ended early.
    """
    path, header = local_headers(spec)[0]
    prefix = f"{spec.architecture}."
    own = [key for key in header.metadata if key.startswith(prefix)]
    words = [
        key
        for key in header.metadata
        if key.startswith("tokenizer.") and not key.startswith(_TEMPLATES)
    ]
    with FileSource(path) as source:
        keys = plain_values(source, header, own)
        tokenizer = plain_values(source, header, words)
    probed = probe_weights(spec, progress=progress)
    return Fingerprint(
        name=path.name,
        architecture=spec.architecture,
        digests=probed.digests,
        keys={key.removeprefix(prefix): value for key, value in keys.items()},
        tokenizer={key.removeprefix("tokenizer."): value for key, value in tokenizer.items()},
        vocabulary=spec.vocabulary,
        gating=spec.experts.gating if spec.experts else None,
        mtp_layers=spec.mtp_layers,
        tensors=tuple(
            TensorPrint(
                name=seen.name,
                type=seen.type,
                shape=seen.shape,
                role=tensor.role,
                layer=tensor.layer,
                bad_rows=seen.bad_rows,
                first_bad_row=seen.first_bad_row,
                norms=seen.norms,
                sketch=seen.sketch,
            )
            for tensor, seen in zip(spec.tensors, probed.tensors, strict=True)
        ),
    )


def _listed(values: Mapping[str, Plain]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _read(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Fingerprint:
    listed = _expect(facts["tensors"], list)
    _require(len(listed) <= MAX_TENSORS)
    norms = _array(arrays["norms"], np.float32, None)
    sketches = {
        NARROW: _array(arrays["narrow"], np.float16, NARROW),
        WIDE: _array(arrays["wide"], np.float16, WIDE),
    }
    with np.errstate(invalid="ignore"):
        _require(not (norms < 0).any() and not np.isinf(norms).any())
    _require(all(np.isfinite(sketch).all() for sketch in sketches.values()))
    begin, used = 0, {NARROW: 0, WIDE: 0}
    tensors = []
    for name, type_name, shape, role, layer, bad_rows, first_bad_row in listed:
        _require(_text(type_name) in BY_NAME)
        dims = tuple(_whole(dim, 1 << 62) for dim in _expect(shape, list))
        _require(0 < len(dims) <= 4 and min(dims) > 0 and math.prod(dims) <= 1 << 62)
        sample = row_sample(_text(name), type_name, dims)
        _require(sample.units <= MAX_UNITS)
        at = used[sample.width]
        own_norms = norms[begin : begin + sample.units]
        own_sketch = sketches[sample.width][at : at + sample.units]
        _require(len(own_norms) == len(own_sketch) == sample.units)
        begin += sample.units
        used[sample.width] += sample.units
        tensors.append(
            TensorPrint(
                name=name,
                type=type_name,
                shape=dims,
                role=Role(role),
                layer=None if layer is None else _whole(layer, 1 << 16),
                bad_rows=_whole(bad_rows, 1 << 62),
                first_bad_row=None if first_bad_row is None else _whole(first_bad_row, 1 << 62),
                norms=own_norms,
                sketch=own_sketch,
            )
        )
    _require(begin == len(norms) and all(used[width] == len(sketches[width]) for width in used))
    _require(len({tensor.name for tensor in tensors}) == len(tensors))
    digests = tuple(_text(digest) for digest in _expect(facts["digests"], list))
    _require(all(_DIGEST.fullmatch(digest) for digest in digests))
    vocabulary, gating = facts["vocabulary"], facts["gating"]
    return Fingerprint(
        name=Path(_text(facts["name"])).name,
        architecture=_text(facts["architecture"]),
        digests=digests,
        keys=_plains(facts["keys"]),
        tokenizer=_plains(facts["tokenizer"]),
        vocabulary=None if vocabulary is None else _whole(vocabulary, 1 << 40),
        gating=None if gating is None else _text(gating),
        mtp_layers=_whole(facts["mtp_layers"], 1 << 16),
        tensors=tuple(tensors),
    )


def _require(holds: Any) -> None:
    if not holds:
        raise ValueError("not what a fingerprint holds")


def _expect(value: Any, kind: type[Any]) -> Any:
    _require(type(value) is kind)
    return value


def _text(value: Any) -> str:
    text: str = _expect(value, str)
    _require(len(text) <= _MAX_TEXT)
    return text


def _whole(value: Any, most: int) -> int:
    number: int = _expect(value, int)
    _require(0 <= number <= most)
    return number


def _array(array: Any, kind: type[np.generic], width: int | None) -> NDArray[Any]:
    _require(isinstance(array, np.ndarray) and array.dtype == kind)
    _require(array.ndim == (1 if width is None else 2) and len(array) <= MAX_UNITS_OF_MODEL)
    _require(width is None or array.shape[1] == width)
    found: NDArray[Any] = array
    return found


def _plains(values: Any) -> dict[str, Plain]:
    """Keys with scalars, or tuples of them."""
    items = _expect(values, dict)
    _require(len(items) <= MAX_VALUES)
    return {_text(key): _plain(value) for key, value in items.items()}


def _plain(value: Any) -> Plain:
    if type(value) is list:
        _require(len(value) <= MAX_VALUES and not any(isinstance(v, list) for v in value))
        return tuple(_plain(member) for member in value)  # type: ignore[misc]
    _require(type(value) in (int, float, bool, str))
    if isinstance(value, str):
        _require(len(value) <= _MAX_TEXT)
    scalar: Plain = value
    return scalar
