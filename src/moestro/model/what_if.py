"""The same model at another size: for questions about files that are not there yet.

Only sizes and types change. What is never quantized (norms, routers, biases: stored as F32) stays
as it is.
"""

from __future__ import annotations

from dataclasses import replace

from moestro.model.ggml_types import BY_NAME, GgmlType
from moestro.model.roles import Role
from moestro.model.spec import ModelSpec, TensorInfo

HEAD_TYPE = "Q6_K"
"""The output head keeps at least this type in llama.cpp's recipes."""

_FALLBACK = "Q8_0"
"""K-quants need rows of 256 values; other rows take a type with blocks of 32, this one at most."""

LABEL_TYPES: tuple[tuple[str, str], ...] = (
    ("IQ1", "IQ1_M"),
    ("IQ2", "IQ2_XS"),
    ("IQ3", "IQ3_XXS"),
    ("IQ4_NL", "IQ4_NL"),
    ("IQ4", "IQ4_XS"),
    ("MXFP4", "MXFP4"),
    ("NVFP4", "NVFP4"),
    ("TQ1", "TQ1_0"),
    ("TQ2", "TQ2_0"),
    ("Q2_K", "Q2_K"),
    ("Q3_K", "Q3_K"),
    ("Q4_0", "Q4_0"),
    ("Q4_1", "Q4_1"),
    ("Q4", "Q4_K"),
    ("Q5_0", "Q5_0"),
    ("Q5_1", "Q5_1"),
    ("Q5", "Q5_K"),
    ("Q6", "Q6_K"),
    ("Q8", "Q8_0"),
    ("BF16", "BF16"),
    ("F16", "F16"),
    ("FP16", "F16"),
    ("F32", "F32"),
)


def bits_per_weight(size_bytes: int, parameters: int) -> float:
    return size_bytes * 8 / parameters


def type_of_label(label: str) -> str | None:
    """The tensor type that most of a file called `Q4_K_M` or `UD-Q2_K_XL` is made of."""
    plain = label.upper().removeprefix("UD-")
    return next((name for prefix, name in LABEL_TYPES if plain.startswith(prefix)), None)


def retyped(model: ModelSpec, type_name: str) -> ModelSpec:
    """`model` with every quantizable tensor in `type_name`, the output head in Q6_K at least."""
    kind = BY_NAME[type_name]
    tensors = tuple(_retyped(tensor, kind, model.tied_embeddings) for tensor in model.tensors)
    return replace(model, tensors=tensors, quantization=type_name)


def resized(model: ModelSpec, tensor_bytes: int) -> ModelSpec:
    """`model` with its quantizable tensors scaled so that all add up to about `tensor_bytes`."""
    scalable = sum(t.size_bytes for t in model.tensors if _is_quantizable(t))
    fixed = model.tensor_bytes - scalable
    factor = max(tensor_bytes - fixed, 0) / scalable if scalable else 1.0
    tensors = tuple(
        replace(tensor, size_bytes=int(tensor.size_bytes * factor))
        if _is_quantizable(tensor)
        else tensor
        for tensor in model.tensors
    )
    return replace(model, tensors=tensors)


def _is_quantizable(tensor: TensorInfo) -> bool:
    return len(tensor.shape) > 1 and tensor.type != "F32" and tensor.role is not Role.ROUTER


def _retyped(tensor: TensorInfo, kind: GgmlType, tied: bool) -> TensorInfo:
    if not _is_quantizable(tensor):
        return tensor
    is_head = tensor.role is Role.OUTPUT or (tied and tensor.role is Role.EMBEDDING)
    if is_head and _bits(kind) < _bits(BY_NAME[HEAD_TYPE]):
        kind = BY_NAME[HEAD_TYPE]
    row = tensor.shape[0]
    if row % kind.block_size:
        kind = BY_NAME[_FALLBACK] if row % BY_NAME[_FALLBACK].block_size == 0 else BY_NAME["F16"]
    rows = tensor.elements // row
    return replace(tensor, type=kind.name, size_bytes=kind.row_bytes(row) * rows)


def _bits(kind: GgmlType) -> float:
    return kind.block_bytes * 8 / kind.block_size
