"""Writes runnable GGUF files of true sizes and types, with random weights.

    python -m bench.planner.random_models --folder DIR [--only PART …]

Speed does not depend on what weights say, but for three things that are held to here: experts are
chosen about uniformly (routers are properly random), activations stay finite, and no value is a
denormal. A pool of normal values is quantized once per type by the engine's own quantizer; tensors
are cut out of it at random places, so gigabytes take seconds. Types of the tensors follow
llama.cpp's recipes, so that "Q4_K_M" means the mixture that people download.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tests.shapes.shape import Shape, TypeChooser, keep_f32
from tests.shapes.weights import random_f32
from tests.shapes.write import ALIGNMENT, encode_header, tensor_bytes, tokenizer, typed_tensors
from tests.tiny_models import CHATML

from moestro.engine.llama_cpp.abi import open_library

POOL_VALUES = 1 << 22
SPAN_BYTES = 1 << 20
"""A tensor is made of spans of the pool of this size, each from a random place."""

DEVIATION = 0.02
"""Of the weights: what trained models of a few thousand channels have."""

EMBEDDING_DEVIATION = 2.0
"""So that what tells tokens apart outweighs what layers add for all alike: with small embeddings,
eight tokens were sent to 10 experts of 64 instead of 42."""

FINAL_NORMS = ("output_norm.weight", "token_embd_norm.weight")

FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
"""llama.cpp's, for rows that are no multiple of the 256 values of a block."""

BASE_TYPES = {
    "F16": "F16",
    "Q8_0": "Q8_0",
    "Q6_K": "Q6_K",
    "Q5_K_M": "Q5_K",
    "Q4_K_M": "Q4_K",
    "Q4_0": "Q4_0",
    "IQ4_XS": "IQ4_XS",
    "MXFP4": "Q8_0",
}


def recipe(label: str, shape: Shape) -> TypeChooser:
    """The type of each tensor under the quantization `label`, as llama.cpp's quantizer chooses."""
    prefix = shape.architecture
    layers = int(shape.metadata[f"{prefix}.block_count"])
    experts = int(shape.metadata.get(f"{prefix}.expert_count", 0))
    tied = is_tied(shape)
    base = BASE_TYPES[label]

    def wanted(name: str) -> str:
        if label == "MXFP4":
            return "MXFP4" if "_exps." in name else base
        if label in ("F16", "Q8_0"):
            return base
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            return "Q6_K"
        if not name.startswith("blk."):
            return base
        layer = int(name.split(".")[1])
        mixed = label in ("Q4_K_M", "Q5_K_M")
        if "attn_v." in name or "attn_k." in name:
            if experts == 8:
                return "Q8_0"
            if "attn_v." in name and mixed and _more_bits(layer, layers):
                return "Q6_K"
        if "attn_output." in name and experts == 8 and label in ("Q4_K_M", "IQ4_XS"):
            return "Q5_K"
        if "attn_qkv." in name and mixed:
            return "Q5_K" if label == "Q4_K_M" else "Q6_K"
        if "ffn_down" in name:
            if mixed and _more_bits(layer, layers):
                return "Q6_K"
            if label == "IQ4_XS" and layer < layers // 8:
                return "Q5_K"
        return base

    def choose(name: str, dims: tuple[int, ...]) -> str:
        if keep_f32(name, dims) or name.endswith(".bias"):
            return "F32"
        kind = wanted(name)
        if dims[0] % _block(kind):
            kind = FALLBACKS.get(kind, "F16")
        return kind if dims[0] % _block(kind) == 0 else "F16"

    return choose


def is_tied(shape: Shape) -> bool:
    """Whether the table of embeddings is the output head too."""
    return all(tensor.name != "output.weight" for tensor in shape.tensors)


def _shuffling_norm(width: int, random: np.random.Generator) -> np.ndarray:
    """Random signs: without them a tied model would answer each token with itself, for ever."""
    signs: np.ndarray = random.choice((-1.0, 1.0), width) * width**-0.5
    return signs.astype(np.float32)


def _more_bits(layer: int, layers: int) -> bool:
    """The layers that the K-quant mixtures treat better: both ends, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _block(kind: str) -> int:
    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]


@functools.cache
def _pool(kind: str, deviation: float = DEVIATION) -> np.ndarray:
    """Normal values quantized to `kind`: one row per block, as bytes."""
    random = np.random.default_rng(gguf.GGMLQuantizationType[kind].value)
    values = (random.standard_normal(POOL_VALUES) * deviation).astype(np.float32)
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    if kind == "F16":
        return values.astype(np.float16).view(np.uint8).reshape(-1, block_bytes)
    out = np.empty(POOL_VALUES // block * block_bytes, dtype=np.uint8)
    quantize = open_library().ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    row = 4096
    written = quantize(
        gguf.GGMLQuantizationType[kind].value, values.ctypes.data, out.ctypes.data,
        0, POOL_VALUES // row, row, None,
    )  # fmt: skip
    assert written == out.nbytes, (kind, written, out.nbytes)
    return out.reshape(-1, block_bytes)


def write_random(
    shape: Shape, types: TypeChooser, path: Path, *, name: str | None = None, seed: int = 0
) -> Path:
    """Writes `shape` with random weights to `path`, through a temporary name beside it."""
    random = np.random.default_rng(seed)
    tensors = typed_tensors(shape, types)
    tied = is_tied(shape)
    metadata: dict[str, Any] = {
        **shape.metadata,
        **tokenizer(shape.vocab, CHATML),
        "general.name": name or path.stem,
    }
    header, data_bytes = encode_header(metadata, tensors)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(header)
        for tensor_name, dims, kind in tensors:
            size = tensor_bytes(kind, dims)
            if tied and tensor_name in FINAL_NORMS:
                file.write(_shuffling_norm(dims[0], random).tobytes())
            elif kind == "F32":
                file.write(random_f32(tensor_name, dims, random).tobytes())
            else:
                embedding = tensor_name == "token_embd.weight"
                pool = _pool(kind, EMBEDDING_DEVIATION if embedding else DEVIATION)
                _write_quantized(file.write, pool, size, random)
            file.write(b"\0" * (-size % ALIGNMENT))
        assert file.tell() == len(header) + data_bytes
    partial.replace(path)
    return path


def _write_quantized(
    write: Callable[[memoryview], int], pool: np.ndarray, size: int, random: np.random.Generator
) -> None:
    block_bytes = pool.shape[1]
    span = max(SPAN_BYTES // block_bytes, 1)
    blocks = size // block_bytes
    while blocks:
        count = min(span, blocks)
        start = int(random.integers(0, len(pool) - count + 1))
        write(pool[start : start + count].data.cast("B"))
        blocks -= count


def main() -> None:
    # Only here: the cases name this module's recipes.
    from bench.planner.cases import MODELS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of file names")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS.values():
        if not any(part in model.name for part in options.only):
            continue
        began = time.perf_counter()
        path = model.write(options.folder)
        seconds = time.perf_counter() - began
        print(f"{path.name:32} {path.stat().st_size / 2**30:6.2f} GiB {seconds:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
