"""A model without weights and words, for the engine to plan with: one small sparse GGUF.

The engine lays a model out from its keys and tensor shapes alone. Of a vocabulary it then needs the
length only, but would spend most of its time on the tokens (2 s of 2.1 s for 248,320 of them). So
a skeleton says `no_vocab` and how many tokens there are, which is the format's own way to leave a
vocabulary out. The parts of a split model become one file. Nothing of the model's bytes is needed
but its header, so this works as well for a model that is still on a server.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moestro.model.ggml_types import GGML_TYPES
from moestro.model.metadata import Scalar, SkippedArray, SkippedText, Value

if TYPE_CHECKING:
    from moestro.model.gguf import GgufHeader
    from moestro.model.spec import ModelSpec

ALIGNMENT = 32
_UINT32, _STRING, _ARRAY = 4, 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
            10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
_TYPE_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}
_LEFT_OUT = ("tokenizer.", "split.", "general.alignment")


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keys of a model as the format encodes them; `count` of them."""

    pairs: bytes
    count: int


def skeleton_of(header: GgufHeader, architecture: str) -> Skeleton:
    """The keys of `header` without its vocabulary, in whose place its length stands."""
    metadata = header.metadata
    pairs = [
        _pair(key, header.kinds[key], value)
        for key, value in metadata.items()
        if not key.startswith(_LEFT_OUT)
        and key != f"{architecture}.vocab_size"
        and not isinstance(value, SkippedArray | SkippedText)
    ]
    tokens = _tokens(metadata, architecture)
    if tokens is not None:
        pairs.append(_pair(f"{architecture}.vocab_size", _UINT32, tokens))
    if "tokenizer.ggml.model" in metadata:
        pairs.append(_pair("tokenizer.ggml.model", _STRING, "no_vocab"))
    return Skeleton(b"".join(pairs), len(pairs))


def write_skeleton(model: ModelSpec, path: Path) -> Path:
    """Writes `model` as a sparse file of its true length that holds no weights.

    Raises:
        ValueError: it was not read from a GGUF.
    """
    if model.skeleton is None:
        raise ValueError(f"{model.format} has no GGUF header")
    descriptions = []
    offset = 0
    for tensor in model.tensors:
        descriptions.append(
            _string(tensor.name)
            + struct.pack("<I", len(tensor.shape))
            + struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
            + struct.pack("<IQ", _TYPE_NUMBERS[tensor.type], offset)
        )
        offset += tensor.size_bytes + -tensor.size_bytes % ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(descriptions), model.skeleton.count)
    header = head + model.skeleton.pairs + b"".join(descriptions)
    header += b"\0" * (-len(header) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
    return path


def _tokens(metadata: Mapping[str, Value], architecture: str) -> int | None:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, SkippedArray):
        return tokens.count
    if isinstance(tokens, list):
        return len(tokens)
    said = metadata.get(f"{architecture}.vocab_size")
    return said if isinstance(said, int) else None


def _pair(key: str, kind: int | tuple[int, int], value: Value) -> bytes:
    if isinstance(kind, tuple) and isinstance(value, list):
        head = struct.pack("<IIQ", _ARRAY, kind[1], len(value))
        return _string(key) + head + b"".join(_all(kind[1], value))
    assert isinstance(kind, int)
    assert isinstance(value, int | float | str)
    return _string(key) + struct.pack("<I", kind) + _scalar(kind, value)


def _all(kind: int, values: Iterable[Scalar]) -> list[bytes]:
    return [_scalar(kind, value) for value in values]


def _scalar(kind: int, value: Scalar) -> bytes:
    return _string(value) if isinstance(value, str) else struct.pack(_SCALARS[kind], value)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
