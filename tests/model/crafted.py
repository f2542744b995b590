"""Hand-made GGUF bytes, right and wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tests.shapes.write import encode_header, encode_value

MINIMAL: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.embedding_length": 32,
    "llama.attention.head_count": 4,
    "llama.context_length": 128,
}
TENSORS = [
    ("token_embd.weight", (32, 64), "F32"),
    ("blk.0.attn_q.weight", (32, 32), "Q8_0"),
    ("output.weight", (32, 64), "F16"),
]


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: Any) -> bytes:
    return text(key) + encode_value(key, value)


def raw_pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def tensor(
    name: str | bytes,
    dims: tuple[int, ...],
    kind: int = 0,
    offset: int = 0,
    count: int | None = None,
) -> bytes:
    return (
        text(name)
        + struct.pack("<I", len(dims) if count is None else count)
        + struct.pack(f"<{len(dims)}Q", *dims)
        + struct.pack("<IQ", kind, offset)
    )


def gguf(
    pairs: list[bytes],
    tensors: list[bytes],
    *,
    version: int = 3,
    pair_count: int | None = None,
    tensor_count: int | None = None,
    data: int = 1 << 16,
) -> bytes:
    header = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(pairs) if pair_count is None else pair_count,
    )
    body = header + b"".join(pairs) + b"".join(tensors)
    return body + b"\0" * (-len(body) % 32) + b"\0" * data


def minimal_pairs() -> list[bytes]:
    return [pair(key, value) for key, value in MINIMAL.items()]


def good(data: bool = True) -> bytes:
    """A small sound model."""
    header, size = encode_header(MINIMAL, TENSORS)
    return header + (b"\0" * size if data else b"")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
