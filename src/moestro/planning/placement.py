"""Which device holds which tensor, by llama.cpp's own rules (`llama_model::load_tensors`).

- The embedding table stays in host memory. If it is the output head too and the head is on a GPU,
  the GPU gets a copy.
- `gpu_layers` blocks are taken from the end: the output head first, then the last block and so on.
  MTP blocks are the last blocks of a file, so they come before any block of the trunk.
- Several GPUs get consecutive blocks: block number i of n goes to the first GPU whose cumulated
  share of the split is above i / n.
- The routed experts of the first `cpu_expert_layers` blocks that have any stay in host memory.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from moestro.hardware import Inventory
from moestro.model import ModelSpec, Role, TensorInfo
from moestro.planning.settings import Settings

HOST = "CPU"


def gpu_name(number: int) -> str:
    return f"GPU{number}"


@dataclass(frozen=True, slots=True)
class Placement:
    """`blocks[i]` is the device of block i (MTP blocks included), `output` that of the head.

    `expert_blocks_on_host` are blocks on a GPU whose routed experts stay in host memory.
    """

    blocks: tuple[str, ...]
    output: str
    expert_blocks_on_host: frozenset[int]

    def device_of(self, tensor: TensorInfo) -> str:
        if tensor.layer is not None and tensor.layer < len(self.blocks):
            if tensor.layer in self.expert_blocks_on_host and is_routed_expert(tensor):
                return HOST
            return self.blocks[tensor.layer]
        if tensor.role is Role.EMBEDDING:
            return HOST
        return self.output

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that holds something, the host first."""
        return (HOST, *sorted({*self.blocks, self.output} - {HOST}))


def place(model: ModelSpec, settings: Settings, gpu_free_bytes: Sequence[int] = ()) -> Placement:
    """The placement of `model` with `settings` on a host with as many GPUs as figures are given.

    The figures are the split where `settings.tensor_split` is None, as in the engine.
    """
    count = block_count(model)
    if not gpu_free_bytes:
        return Placement((HOST,) * count, HOST, frozenset())
    wanted = count + 1 if settings.gpu_layers is None else settings.gpu_layers
    on_gpu = min(wanted, count + 1)
    first = max(count + 1 - wanted, 0)
    shares = settings.tensor_split or gpu_free_bytes
    bounds = _bounds(shares)

    def device(block: int) -> str:
        if block < first or block - first >= on_gpu:
            return HOST
        number = bisect_right(bounds, _single((block - first) / on_gpu))
        return gpu_name(min(number, len(gpu_free_bytes) - 1))

    blocks = tuple(device(block) for block in range(count))
    with_experts = expert_blocks(model)[: settings.cpu_expert_layers]
    on_host = frozenset(block for block in with_experts if blocks[block] != HOST)
    return Placement(blocks, device(count), on_host)


def gpu_capacities(inventory: Inventory) -> tuple[int, ...]:
    """Bytes that can be had of each GPU: what is free now, else all of it; 0 where unknown."""
    return tuple(
        (gpu.memory_bytes or 0) if gpu.free_bytes is None else gpu.free_bytes
        for gpu in inventory.gpus
    )


def _bounds(shares: Sequence[float]) -> list[float]:
    """Cumulated shares of the split, in the engine's single precision: with equal GPUs blocks lie
    exactly on the bounds."""
    cumulated = list(accumulate(shares, lambda total, share: _single(total + _single(share))))
    total = cumulated[-1] or 1.0
    return [_single(share / total) for share in cumulated]


def _single(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def block_count(model: ModelSpec) -> int:
    return model.block_count


def expert_blocks(model: ModelSpec) -> tuple[int, ...]:
    return model.expert_blocks


def is_routed_expert(tensor: TensorInfo) -> bool:
    return tensor.is_routed_expert
