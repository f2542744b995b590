"""Changes a GGUF file: opens it, lets keys and tensors be replaced, writes another one.

    file = Gguf.open(path)
    file.set("llama.rope.freq_base", 1e6)
    file.store("blk.0.attn_q.weight", -file.values("blk.0.attn_q.weight"))
    file.write(target)

Reads and writes with its own few lines, so that it shares no bug with moestro's reader, and in a
fraction of a second: values of metadata stay encoded until somebody asks for one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.shapes.write import ALIGNMENT, encode_value, tensor_bytes

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
UINT32, FLOAT32 = 4, 6


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`dims` in GGUF order (the row length first); `data` the encoded bytes, flat."""

    dims: tuple[int, ...]
    type: str
    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy counts: the row length last."""
        return self.dims[::-1]


class Gguf:
    """A file's keys, still encoded, and its tensors, in the order in which they are written."""

    def __init__(self, keys: dict[str, bytes], tensors: dict[str, StoredTensor]) -> None:
        self.keys = keys
        self.tensors = tensors

    @classmethod
    def open(cls, path: Path) -> Gguf:
        """Tensors are views of the mapped file: it has to stay until `write` is done."""
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
        raw = mapped.data
        magic, version, tensor_count, key_count = struct.unpack_from("<4sIQQ", raw, 0)
        assert magic == b"GGUF", path
        assert version == 3, (path, version)
        at = 24
        keys = {}
        for _ in range(key_count):
            name, at = _text(raw, at)
            end = _past_value(raw, at)
            keys[name] = bytes(raw[at:end])
            at = end
        infos = []
        for _ in range(tensor_count):
            name, at = _text(raw, at)
            (count,) = struct.unpack_from("<I", raw, at)
            dims = struct.unpack_from(f"<{count}Q", raw, at + 4)
            kind, offset = struct.unpack_from("<IQ", raw, at + 4 + 8 * count)
            at += 16 + 8 * count
            infos.append((name, dims, gguf.GGMLQuantizationType(kind).name, offset))
        start = at + -at % ALIGNMENT
        tensors = {}
        for name, dims, kind, offset in infos:
            begin = start + offset
            data = mapped[begin : begin + tensor_bytes(kind, dims)]
            tensors[name] = StoredTensor(dims, kind, data)
        return cls(keys, tensors)

    @property
    def architecture(self) -> str:
        return str(self.get("general.architecture"))

    def get(self, key: str) -> Any:
        """A scalar, a text, or a list of them; None if there is no such key. A name that starts
        with a dot belongs to the architecture."""
        encoded = self.keys.get(self._full(key))
        return None if encoded is None else _value(encoded)

    def set(self, key: str, value: Any) -> None:
        """Keeps the type that the key has, so that only the value changes."""
        key = self._full(key)
        encoded = encode_value(key, value)
        old = self.keys.get(key)
        if old is not None and (kind := struct.unpack_from("<I", old)[0]) in _SCALARS:
            encoded = old[:4] + struct.pack(_SCALARS[kind], value)
        elif old is not None and isinstance(value, list):
            encoded = old[:8] + encoded[8:]
        self.keys[key] = encoded

    def drop(self, key: str) -> None:
        self.keys.pop(self._full(key), None)

    def values(self, name: str) -> np.ndarray:
        """A tensor's values as float32, in numpy's order of axes; a copy."""
        tensor = self.tensors[name]
        kind = gguf.GGMLQuantizationType[tensor.type]
        rows = tensor.data.reshape(-1, tensor_bytes(tensor.type, (tensor.dims[0],)))
        values = gguf.quants.dequantize(rows, kind)
        return np.array(values, dtype=np.float32).reshape(tensor.shape)

    def store(self, name: str, values: np.ndarray, kind: str | None = None) -> None:
        """Replaces or adds a tensor; in the type it had, unless `kind` names another."""
        kind = kind or self.tensors[name].type
        dims = tuple(int(size) for size in values.shape[::-1])
        rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, dims[0])
        encoded = (
            encode_q2_k(rows)
            if kind == "Q2_K"
            else gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
        )
        self.tensors[name] = StoredTensor(dims, kind, encoded.reshape(-1).view(np.uint8))

    def write(self, path: Path) -> Path:
        infos, offset = [], 0
        for name, tensor in self.tensors.items():
            kind = gguf.GGMLQuantizationType[tensor.type].value
            dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
            infos.append(_encoded(name) + dims + struct.pack("<IQ", kind, offset))
            offset += tensor.data.nbytes + -tensor.data.nbytes % ALIGNMENT
        header = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))
        header += b"".join(_encoded(key) + value for key, value in self.keys.items())
        header += b"".join(infos)
        with path.open("wb") as file:
            file.write(header + b"\0" * (-len(header) % ALIGNMENT))
            for tensor in self.tensors.values():
                file.write(tensor.data.data)
                file.write(b"\0" * (-tensor.data.nbytes % ALIGNMENT))
        return path

    def _full(self, key: str) -> str:
        return self.architecture + key if key.startswith(".") else key


def encode_q2_k(rows: np.ndarray) -> np.ndarray:
    """Rows (their length a multiple of 256) in llama.cpp's Q2_K; plain rounding, no search.

    A block of 256 values has 16 groups; a value is d·scale·q − dmin·min with 2 bits for q and 4
    each for a group's scale and min. Returns bytes, a row each.
    """
    groups = rows.reshape(-1, 16, 16)
    low = np.minimum(groups.min(axis=2), 0.0)
    step = (groups.max(axis=2).clip(min=0.0) - low) / 3
    d = (step.max(axis=1) / 15).astype(np.float16)
    dmin = (-low.min(axis=1) / 15).astype(np.float16)
    scales = _levels(step, d, 15)
    mins = _levels(-low, dmin, 15)
    wide = d.astype(np.float32)[:, None] * scales
    shifted = groups + (dmin.astype(np.float32)[:, None] * mins)[:, :, None]
    chosen = np.where(
        wide[:, :, None] > 0, shifted / np.where(wide > 0, wide, 1)[:, :, None], 0
    ).round()
    # Each half of a block packs four runs of 32 values into 32 bytes, two bits a run.
    runs = chosen.clip(0, 3).astype(np.uint8).reshape(-1, 2, 4, 32)
    packed = runs[:, :, 0] | runs[:, :, 1] << 2 | runs[:, :, 2] << 4 | runs[:, :, 3] << 6
    blocks = np.concatenate(
        [
            (scales.astype(np.uint8) | mins.astype(np.uint8) << 4),
            packed.reshape(-1, 64),
            d.view(np.uint8).reshape(-1, 2),
            dmin.view(np.uint8).reshape(-1, 2),
        ],
        axis=1,
    )
    return blocks.reshape(len(rows), -1)


def _levels(values: np.ndarray, unit: np.ndarray, most: int) -> np.ndarray:
    """`values` as whole multiples of each row's `unit`."""
    safe = np.where(unit > 0, unit, 1).astype(np.float32)[:, None]
    return np.where(unit[:, None] > 0, values / safe, 0).round().clip(0, most)


def _text(raw: memoryview, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", raw, at)
    at += 8
    return bytes(raw[at : at + length]).decode(), at + length


def _encoded(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _past_value(raw: memoryview, at: int) -> int:
    """Where the typed value at `at` ends."""
    (kind,) = struct.unpack_from("<I", raw, at)
    return _past(raw, at + 4, kind)


def _past(raw: memoryview, at: int, kind: int) -> int:
    if kind == _STRING:
        return at + 8 + int(struct.unpack_from("<Q", raw, at)[0])
    if kind != _ARRAY:
        return at + struct.calcsize(_SCALARS[kind])
    inner, count = struct.unpack_from("<IQ", raw, at)
    at += 12
    if inner in _SCALARS:
        return at + int(count) * struct.calcsize(_SCALARS[inner])
    for _ in range(count):
        at = _past(raw, at, inner)
    return at


def _value(encoded: bytes) -> Any:
    raw = memoryview(encoded)
    (kind,) = struct.unpack_from("<I", raw)
    if kind == _STRING:
        return _text(raw, 4)[0]
    if kind != _ARRAY:
        return struct.unpack_from(_SCALARS[kind], raw, 4)[0]
    inner, count = struct.unpack_from("<IQ", raw, 4)
    at, values = 16, []
    for _ in range(count):
        if inner == _STRING:
            value, at = _text(raw, at)
        else:
            (value,) = struct.unpack_from(_SCALARS[inner], raw, at)
            at += struct.calcsize(_SCALARS[inner])
        values.append(value)
    return values
