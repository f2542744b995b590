"""Clean quantizations of a GGUF by ggml's own quantizers, in any type.

    quantized_copy(source, target, "Q4_K")

What llama.cpp leaves alone (norms, routers, small tensors) stays as it is, and rows that a type
cannot take become Q8_0. Runs in this process: the types and shapes are known to be good.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from moestro.engine.llama_cpp import ggml
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.type_traits import TYPE_NUMBERS, to_float_of
from moestro.engine.llama_cpp.type_traits import declare as declare_traits
from moestro.model.ggml_types import BY_NAME
from tests.rewriting import Gguf, StoredTensor

KEPT = ("_norm.weight", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "altup", "laurel")


def library() -> ctypes.CDLL:
    return ggml.declare(declare_traits(open_library()))


def encode(rows: np.ndarray, kind: str, importance: np.ndarray | None = None) -> np.ndarray:
    """`rows` f32 [n, length] as flat bytes of type `kind`; `importance` f32 [length]."""
    lib, number = library(), TYPE_NUMBERS[kind]
    count, length = rows.shape
    values = np.ascontiguousarray(rows, dtype=np.float32)
    data = np.empty(count * BY_NAME[kind].row_bytes(length), dtype=np.uint8)
    if importance is None and lib.ggml_quantize_requires_imatrix(number):
        importance = np.ones(length, dtype=np.float32)
    weights = None if importance is None else importance.ctypes.data
    lib.ggml_quantize_chunk(number, values.ctypes.data, data.ctypes.data, 0, count, length, weights)
    return data


def decode(data: np.ndarray, kind: str, length: int) -> np.ndarray:
    """The reverse: f32 [n, length]."""
    if kind == "F32":
        return np.array(data).view(np.float32).reshape(-1, length)
    rows = data.size // BY_NAME[kind].row_bytes(length)
    values = np.empty((rows, length), dtype=np.float32)
    to_float = to_float_of(library(), kind)
    assert to_float is not None
    flat = np.ascontiguousarray(data)
    to_float(int(flat.ctypes.data), int(values.ctypes.data), values.size)
    return values


def quantized_copy(
    source: Path, target: Path, kind: str, *, importance_seed: int | None = None
) -> Path:
    """`importance_seed`: with importances that differ widely, as an importance matrix has them."""
    file = Gguf.open(source)
    random = np.random.default_rng(importance_seed)
    for name, tensor in list(file.tensors.items()):
        if len(tensor.dims) < 2 or not name.endswith(".weight") or any(k in name for k in KEPT):
            continue
        length = tensor.dims[0]
        own = kind if length % BY_NAME[kind].block_size == 0 else "Q8_0"
        if length % BY_NAME[own].block_size:
            continue
        weights = None
        if importance_seed is not None and kind not in ("F16", "BF16"):
            weights = np.exp(2 * random.standard_normal(length)).astype(np.float32)
        values = decode(tensor.data, tensor.type, length)
        file.tensors[name] = StoredTensor(tensor.dims, own, encode(values, own, weights))
    return file.write(target)
