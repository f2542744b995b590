"""A model without weights: metadata and tensor shapes, as a GGUF header states them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TypeChooser = Callable[[str, tuple[int, ...]], str]


@dataclass(frozen=True)
class TensorShape:
    """`dims` are in GGUF order: the row length comes first."""

    name: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


@dataclass
class Shape:
    """Metadata keys without their architecture prefix go through `set`."""

    architecture: str
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: list[TensorShape] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metadata["general.architecture"] = self.architecture
        self.metadata["general.name"] = f"shape of {self.architecture}"

    def set(self, **keys: Any) -> None:
        """`attention__head_count=8` sets `<architecture>.attention.head_count`."""
        for key, value in keys.items():
            self.metadata[f"{self.architecture}.{key.replace('__', '.')}"] = value

    def add(self, name: str, *dims: int) -> None:
        self.tensors.append(TensorShape(name, dims))

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    def with_vocabulary(self, entries: int) -> Shape:
        """The same model with another vocabulary: engines take long to load the true one."""
        true = self.vocab
        dims = {
            tensor.name: tuple(entries if dim == true else dim for dim in tensor.dims)
            for tensor in self.tensors
            if tensor.name.startswith(("token_embd.", "output."))
            or tensor.name.endswith(
                ("embed_tokens.weight", "shared_head_head.weight", "tid2eid.weight")
            )
        }
        metadata = dict(self.metadata)
        if f"{self.architecture}.vocab_size" in metadata:
            metadata[f"{self.architecture}.vocab_size"] = entries
        tensors = [TensorShape(t.name, dims.get(t.name, t.dims)) for t in self.tensors]
        return Shape(self.architecture, metadata, tensors)

    @property
    def vocab(self) -> int:
        return next(t.dims[1] for t in self.tensors if t.name == "token_embd.weight")


def keep_f32(name: str, dims: tuple[int, ...]) -> bool:
    """What no quantizer touches: vectors, routers, convolutions, hash tables."""
    return len(dims) == 1 or any(
        part in name
        for part in ("ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "_norm", "hc_", "_ape")
    )


def q4_k_m(name: str, dims: tuple[int, ...]) -> str:
    """Roughly the popular recipe: 4-bit, with more bits for the output and for down projections."""
    if "tid2eid" in name:
        return "I32"
    if keep_f32(name, dims) or name.endswith(".bias"):
        return "F32"
    if dims[0] % 256:
        return "Q8_0" if dims[0] % 32 == 0 else "F16"
    if name == "output.weight" or "ffn_down" in name or "attn_v" in name:
        return "Q6_K"
    return "Q4_K"


def mxfp4(name: str, dims: tuple[int, ...]) -> str:
    """gpt-oss: experts in MXFP4, everything else in Q8_0."""
    if keep_f32(name, dims) or name.endswith(".bias"):
        return "F32"
    return "MXFP4" if "_exps" in name else "Q8_0"


def all_f32(name: str, dims: tuple[int, ...]) -> str:
    return "I32" if "tid2eid" in name else "F32"
