"""Bytes of weights on each device, as the engine's buffers hold them.

A buffer pads each tensor: on the host to 32 bytes, on a GPU to 128, where a quantized tensor whose
rows are no multiple of 512 values also gets the rest of one such row. An embedding table that is
the output head too is kept twice where the head needs another kind of buffer: on a GPU, or, on a
host that repacks weights of this type, in the repacked layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from moestro.hardware.cpu import Cpu
from moestro.model import ModelSpec, Role, TensorInfo
from moestro.model.ggml_types import BY_NAME
from moestro.planning.placement import HOST, Placement, is_routed_expert

HOST_ALIGNMENT = 32
GPU_ALIGNMENT = 128
GPU_ROW = 512


@dataclass(frozen=True)
class Weights:
    """Sizes of a model's tensors by block and kind, added up once: a search asks often."""

    model: ModelSpec

    @cached_property
    def _groups(self) -> list[tuple[TensorInfo, int, int, bool]]:
        """One tensor for each kind of place, its bytes on the host and on a GPU, whether MTP's."""
        host: Counter[tuple[int | None, bool, bool, bool]] = Counter()
        gpu: Counter[tuple[int | None, bool, bool, bool]] = Counter()
        example: dict[tuple[int | None, bool, bool, bool], TensorInfo] = {}
        for tensor in self.model.tensors:
            key = (
                tensor.layer,
                is_routed_expert(tensor),
                tensor.role is Role.MTP,
                tensor.role is Role.EMBEDDING,
            )
            example.setdefault(key, tensor)
            host[key] += host_bytes(tensor)
            gpu[key] += gpu_bytes(tensor)
        return [(example[key], host[key], gpu[key], key[2]) for key in example]

    @cached_property
    def head(self) -> TensorInfo | None:
        """The embedding table where it is the output head too."""
        if not self.model.tied_embeddings:
            return None
        tables = (t for t in self.model.tensors if t.name == "token_embd.weight")
        return next(tables, None)

    def by_device(
        self, placement: Placement, *, with_mtp: bool, repacks: Collection[str] = ()
    ) -> dict[str, int]:
        """Bytes on each device. `repacks` are the tensor types that this host repacks."""
        found: Counter[str] = Counter({HOST: 0})
        for tensor, on_host, on_gpu, is_mtp in self._groups:
            if is_mtp and not with_mtp:
                continue
            device = placement.device_of(tensor)
            found[device] += on_host if device == HOST else on_gpu
        if self.head is not None:
            found[placement.output] += head_copy_bytes(self.head, placement, repacks)
        return dict(found)

    def repacked_bytes(
        self, placement: Placement, *, with_mtp: bool, types: Collection[str]
    ) -> int:
        """The part of the host's weights that it repacks: matrices of `types`, rows in eights. None
        where there is a GPU: the engine then keeps the host's weights ready for copies to it."""
        if not types or placement.devices != (HOST,):
            return 0
        total = sum(
            host_bytes(tensor)
            for tensor in self.model.tensors
            if tensor.type in types
            and _is_matrix(tensor)
            and (with_mtp or tensor.role is not Role.MTP)
        )
        if self.head is not None:
            total += head_copy_bytes(self.head, placement, types)
        return total


def host_bytes(tensor: TensorInfo) -> int:
    return tensor.size_bytes + -tensor.size_bytes % HOST_ALIGNMENT


def gpu_bytes(tensor: TensorInfo) -> int:
    kind = BY_NAME[tensor.type]
    size_bytes = tensor.size_bytes
    rest = tensor.shape[0] % GPU_ROW
    if kind.block_size > 1 and rest:
        size_bytes += kind.row_bytes(GPU_ROW - rest)
    return size_bytes + -size_bytes % GPU_ALIGNMENT


def head_copy_bytes(head: TensorInfo, placement: Placement, repacks: Collection[str]) -> int:
    """The second copy of an embedding table that is the output head too."""
    if placement.output != HOST:
        return gpu_bytes(head)
    alone = placement.devices == (HOST,)
    return host_bytes(head) if alone and _is_repacked(head, repacks) else 0


def _is_repacked(tensor: TensorInfo, types: Collection[str]) -> bool:
    return tensor.type in types and len(tensor.shape) > 1 and tensor.shape[1] % 8 == 0


def _is_matrix(tensor: TensorInfo) -> bool:
    looked_up = tensor.role is Role.EMBEDDING
    return not looked_up and len(tensor.shape) > 1 and tensor.shape[1] % 8 == 0


def repacked_types(cpu: Cpu) -> frozenset[str]:
    """Tensor types that the engine's own builds repack on this processor
    (`ggml_repack_get_optimal_repack_type`); x86 builds go no further than AVX2."""
    has = set(cpu.instruction_sets)
    if "AVX2" in has:
        return frozenset(("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"))
    if cpu.architecture.lower() in ("arm64", "aarch64"):
        return frozenset(("Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0"))
    return frozenset()
