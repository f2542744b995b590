"""Reads the header of a safetensors file: names, types and shapes, never weights.

Format: the header's length (64 bit, little-endian), the header (one JSON object: tensor name →
dtype, shape, data_offsets), then the data. The format itself bounds the header at 100 MB.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from moestro.errors import ModelCorrupt, ModelTruncated, NotAModel
from moestro.model.source import FileSource
from moestro.words import shown

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 62

# Bits, because some types share a byte.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """One entry. `shape` is as stored: the row length comes last."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def read_safetensors_header(path: Path) -> tuple[list[SafeTensor], int]:
    """(tensors, bytes read) of one file.

    Raises:
        NotAModel, ModelTruncated, ModelCorrupt
    """
    with FileSource(path) as source:
        start = source.read_at(0, 8)
        if len(start) < 8:
            raise ModelTruncated(
                f"{path.name} has only {len(start)} bytes.", hint="Get the file again."
            )
        (length,) = struct.unpack("<Q", start)
        if source.read_at(8, 1) not in (b"{", b""):
            raise NotAModel(
                f"{path.name} is not a safetensors file.",
                hint="It may be a Git LFS pointer: run `git lfs pull`, or get the file again.",
            )
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise _corrupt(path, f"claims a header of {length:,} bytes")
        raw = source.read_at(8, length)
        if len(raw) < length:
            raise ModelTruncated(
                f"{path.name} ends inside its header ({source.size_bytes:,} bytes).",
                hint="The download or copy is incomplete; get the file again.",
            )
        tensors, data_bytes = _parse(path, raw)
        if 8 + length + data_bytes > source.size_bytes:
            raise ModelTruncated(
                f"{path.name} is cut off: its header describes {8 + length + data_bytes:,} bytes, "
                f"the file has {source.size_bytes:,}.",
                hint="The download or copy is incomplete; get the file again.",
            )
        return tensors, source.transferred_bytes


def load_json(path: Path, raw: bytes) -> object:
    """JSON from an untrusted file.

    Raises:
        ModelCorrupt: not JSON, or nested too deep.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, "is not valid JSON") from error


def _parse(path: Path, raw: bytes) -> tuple[list[SafeTensor], int]:
    entries = load_json(path, raw)
    if not isinstance(entries, dict):
        raise _corrupt(path, "has a header that is no JSON object")
    entries.pop("__metadata__", None)
    tensors, spans = [], []
    for name, entry in entries.items():
        tensor, span = _tensor(path, name, entry)
        tensors.append(tensor)
        spans.append((*span, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start < end:
            raise _corrupt(path, f"places {shown(name)} over the tensor before it")
        end = stop
    return tensors, end


def _tensor(path: Path, name: str, entry: object) -> tuple[SafeTensor, tuple[int, int]]:
    if not isinstance(entry, dict):
        raise _corrupt(path, f"does not describe {shown(name)}")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _corrupt(path, f"gives {shown(name)} the unknown type {shown(str(dtype), 20)}")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise _corrupt(path, f"gives {shown(name)} no sound shape")
    if not _whole_numbers(span) or len(span) != 2:
        raise _corrupt(path, f"gives {shown(name)} no sound place")
    elements = math.prod(shape)
    start, stop = span
    if elements > MAX_ELEMENTS or stop - start != -(-elements * DTYPE_BITS[dtype] // 8):
        raise _corrupt(path, f"gives {shown(name)} a shape that does not fit its place")
    return SafeTensor(name, dtype, tuple(shape), stop - start), (start, stop)


def _whole_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number <= MAX_ELEMENTS for number in value
    )


def _corrupt(path: Path, what: str) -> ModelCorrupt:
    return ModelCorrupt(
        f"{path.name} {what}.",
        hint="The file is damaged or was written wrongly; get it again from its source.",
    )
