"""A model to try a compiled engine with: a few random experts, in the tensor types that processors
have code of their own for. 2 MB, made in a moment; every engine of this family understands it."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

_WIDTH = 256  # K-quants have blocks of that length
_EXPERTS = 4
_BYTES = [f"<0x{number:02X}>" for number in range(256)]
_TOKENS = ["<unk>", "<s>", "</s>", *_BYTES, *(f"▁{n}" for n in range(29))]
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_F32 = 0


def _q8_0(chance: random.Random) -> bytes:
    return struct.pack("<e", 0.0005) + chance.randbytes(32)


def _q4_0(chance: random.Random) -> bytes:
    return struct.pack("<e", 0.008) + chance.randbytes(16)


def _q4_k(chance: random.Random) -> bytes:
    return struct.pack("<2e", 0.0002, 0.001) + chance.randbytes(140)


def _q6_k(chance: random.Random) -> bytes:
    return chance.randbytes(208) + struct.pack("<e", 0.00004)


# ggml's number of a type → elements in a block, and a random block of it.
_BLOCKS: dict[int, tuple[int, Callable[[random.Random], bytes]]] = {
    2: (32, _q4_0), 8: (32, _q8_0), 12: (256, _q4_k), 14: (256, _q6_k),
}  # fmt: skip
_TYPE_OF_LAYER = (8, 2, 12)  # Q8_0, Q4_0, Q4_K; the output is Q6_K


def write_smoke_model(path: Path) -> Path:
    """Writes the model to `path`; the same bytes each time."""
    chance = random.Random(0)
    descriptions, data, offset = [], [], 0
    for name, kind, shape in _tensors():
        content = _content(chance, kind, shape)
        content += b"\0" * (-len(content) % 32)
        descriptions.append(
            _string(name)
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        )  # fmt: skip
        data.append(content)
        offset += len(content)
    pairs = list(_pairs())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(descriptions), len(pairs))
    header = head + b"".join(pairs) + b"".join(descriptions)
    path.write_bytes(header + b"\0" * (-len(header) % 32) + b"".join(data))
    return path


def _tensors() -> Iterable[tuple[str, int, tuple[int, ...]]]:
    """Name, type and shape, the contiguous dimension first."""
    square, words = (_WIDTH, _WIDTH), (_WIDTH, len(_TOKENS))
    yield "token_embd.weight", 8, words
    yield "output_norm.weight", _F32, (_WIDTH,)
    yield "output.weight", 14, words
    for layer, kind in enumerate(_TYPE_OF_LAYER):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", _F32, (_WIDTH,)
        yield f"{block}.ffn_norm.weight", _F32, (_WIDTH,)
        for part in ("q", "k", "v", "output"):
            yield f"{block}.attn_{part}.weight", kind, square
        yield f"{block}.ffn_gate_inp.weight", _F32, (_WIDTH, _EXPERTS)
        for part in ("gate", "up", "down"):
            yield f"{block}.ffn_{part}_exps.weight", kind, (*square, _EXPERTS)


def _content(chance: random.Random, kind: int, shape: tuple[int, ...]) -> bytes:
    count = 1
    for length in shape:
        count *= length
    if kind == _F32:
        flat = len(shape) == 1
        values = (1.0 if flat else chance.uniform(-0.1, 0.1) for _ in range(count))
        return struct.pack(f"<{count}f", *values)
    length, block = _BLOCKS[kind]
    return b"".join(block(chance) for _ in range(count // length))


def _pairs() -> Iterable[bytes]:
    yield _pair("general.architecture", "llama")
    for key, value in {
        "context_length": 512,
        "embedding_length": _WIDTH,
        "block_count": len(_TYPE_OF_LAYER),
        "feed_forward_length": _WIDTH,
        "attention.head_count": 4,
        "attention.head_count_kv": 4,
        "rope.dimension_count": _WIDTH // 4,
        "expert_count": _EXPERTS,
        "expert_used_count": 2,
        "vocab_size": len(_TOKENS),
    }.items():
        yield _pair(f"llama.{key}", value)
    yield _pair("llama.attention.layer_norm_rms_epsilon", 1e-5)
    yield _pair("tokenizer.ggml.model", "llama")
    yield _array("tokenizer.ggml.tokens", _STRING, map(_string, _TOKENS))
    scores = (struct.pack("<f", -float(n)) for n in range(len(_TOKENS)))
    yield _array("tokenizer.ggml.scores", _FLOAT32, scores)
    # Unknown, control, byte and plain tokens.
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(_TOKENS) - 259)]
    yield _array("tokenizer.ggml.token_type", _INT32, (struct.pack("<i", kind) for kind in kinds))
    for number, name in enumerate(("unknown", "bos", "eos")):
        yield _pair(f"tokenizer.ggml.{name}_token_id", number)


def _pair(key: str, value: str | int | float) -> bytes:
    if isinstance(value, str):
        return _string(key) + struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, int):
        return _string(key) + struct.pack("<II", _UINT32, value)
    return _string(key) + struct.pack("<If", _FLOAT32, value)


def _array(key: str, kind: int, items: Iterable[bytes]) -> bytes:
    encoded = list(items)
    return _string(key) + struct.pack("<IIQ", _ARRAY, kind, len(encoded)) + b"".join(encoded)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
