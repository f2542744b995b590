"""Writes a shape as a GGUF file that holds the header only: sparse, but of the true length."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf

from .shape import Shape, TypeChooser, q4_k_m

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
UINT16 = 2
SPLIT_KEYS = {"split.no": UINT16, "split.count": UINT16, "split.tensors.count": INT32}


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _scalar(value: Any, kind: int) -> bytes:
    if kind == STRING:
        return _string(value)
    return struct.pack({2: "<H", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}[kind], value)


def _kind(value: Any) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return UINT32 if value >= 0 else INT32
    return FLOAT32 if isinstance(value, float) else STRING


def encode_value(key: str, value: Any) -> bytes:
    if isinstance(value, list):
        kind = INT32 if value and all(type(v) is int for v in value) else _kind(value[0])
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(
            _scalar(v, kind) for v in value
        )
    kind = SPLIT_KEYS.get(key, _kind(value))
    return struct.pack("<I", kind) + _scalar(value, kind)


def tensor_bytes(type_name: str, dims: tuple[int, ...]) -> int:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    assert dims[0] % block == 0, (type_name, dims)
    total = size * dims[0] // block
    for dim in dims[1:]:
        total *= dim
    return total


def byte_tokens() -> list[str]:
    """The 256 printable stand-ins for bytes that GPT-2 style vocabularies start with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {byte: chr(byte) for byte in printable}
    extra = 256
    for byte in range(256):
        if byte not in stand_in:
            stand_in[byte] = chr(extra)
            extra += 1
    return [stand_in[byte] for byte in range(256)]


def tokenizer(vocab: int, template: str | None = None) -> dict[str, Any]:
    """A byte-level vocabulary that the engine accepts, filled up to `vocab` entries."""
    pieces = byte_tokens()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    filler = [f"<extra_{index}>" for index in range(max(0, vocab - 256 - len(specials)))]
    tokens = (pieces + filler + specials)[-vocab:] if vocab < 259 else pieces + filler + specials
    kinds = [1] * (len(tokens) - len(specials)) + [3] * len(specials)
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["t h", "Ġ t"],
        "tokenizer.ggml.bos_token_id": vocab - 3,
        "tokenizer.ggml.eos_token_id": vocab - 1,
        "tokenizer.ggml.padding_token_id": vocab - 3,
        "tokenizer.ggml.add_bos_token": False,
    }
    if template:
        keys["tokenizer.chat_template"] = template
    return keys


def encode_header(
    metadata: dict[str, Any],
    tensors: Iterable[tuple[str, tuple[int, ...], str]],
    *,
    version: int = 3,
    drop_keys: Iterable[str] = (),
) -> tuple[bytes, int]:
    """Header bytes (padded to the alignment) and the length of the data section."""
    dropped = set(drop_keys)
    pairs = [(key, value) for key, value in metadata.items() if key not in dropped]
    infos, offset = [], 0
    for name, dims, type_name in tensors:
        infos.append(
            _string(name)
            + struct.pack("<I", len(dims))
            + struct.pack(f"<{len(dims)}Q", *dims)
            + struct.pack("<IQ", gguf.GGMLQuantizationType[type_name].value, offset)
        )
        offset += -(-tensor_bytes(type_name, dims) // ALIGNMENT) * ALIGNMENT
    header = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs))
    header += b"".join(_string(key) + encode_value(key, value) for key, value in pairs)
    header += b"".join(infos)
    return header + b"\0" * (-len(header) % ALIGNMENT), offset


def _sparse(path: Path, header: bytes, data_bytes: int) -> None:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data_bytes)


def typed_tensors(
    shape: Shape, types: TypeChooser = q4_k_m, *, skip: Iterable[str] = ()
) -> list[tuple[str, tuple[int, ...], str]]:
    """`skip` drops tensors whose name contains one of its parts."""
    parts = tuple(skip)
    return [
        (tensor.name, tensor.dims, types(tensor.name, tensor.dims))
        for tensor in shape.tensors
        if not any(part in tensor.name for part in parts)
    ]


def write_header(
    shape: Shape,
    path: Path,
    *,
    types: TypeChooser = q4_k_m,
    vocab_tokens: int | None = None,
    skip: Iterable[str] = (),
    drop_keys: Iterable[str] = (),
    extra: dict[str, Any] | None = None,
    version: int = 3,
) -> Path:
    """A sparse GGUF of the shape's true length.

    `vocab_tokens` is the length of the token list; by default as long as the embedding table.
    """
    metadata = {
        **shape.metadata,
        "general.file_type": 15,
        **tokenizer(vocab_tokens or shape.vocab, template="{{ messages }}"),
        **(extra or {}),
    }
    tensors = typed_tensors(shape, types, skip=skip)
    _sparse(path, *encode_header(metadata, tensors, version=version, drop_keys=drop_keys))
    return path


def write_split(shape: Shape, folder: Path, stem: str, parts: int) -> list[Path]:
    """The shape as a split set, tensors dealt out in order; metadata is in the first part."""
    tensors = typed_tensors(shape)
    per_part = -(-len(tensors) // parts)
    paths = []
    for number in range(parts):
        metadata: dict[str, Any] = {}
        if number == 0:
            metadata = {**shape.metadata, **tokenizer(shape.vocab)}
        metadata["split.no"] = number
        metadata["split.count"] = parts
        metadata["split.tensors.count"] = len(tensors)
        path = folder / f"{stem}-{number + 1:05d}-of-{parts:05d}.gguf"
        dealt = tensors[number * per_part : (number + 1) * per_part]
        _sparse(path, *encode_header(metadata, dealt))
        paths.append(path)
    return paths
