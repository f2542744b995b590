"""What moves between devices during a pass, and which device computes with it.

The engine computes where a weight lies, with one exception (`ggml_backend_sched`, `op_offload`):
products with weights in host memory and 32 tokens or more go to the first GPU, and the weights are
copied to it, of experts only those that some token chose.
"""

from __future__ import annotations

from itertools import pairwise

from moestro.hardware import Inventory
from moestro.model import ModelSpec, TensorInfo
from moestro.planning.placement import HOST, Placement, gpu_name, is_routed_expert
from moestro.planning.work import Where

OFFLOAD_TOKENS = 32
"""The smallest batch whose products leave the host (GGML_OP_OFFLOAD_MIN_BATCH's default)."""

COPY_SHARE = 0.5
"""Of the link's peak: weights are mapped from a file, not pinned, and headers take their part."""

CROSSING_SECONDS = 30e-6
"""One change of device: wait for it, copy the activations, start the next."""


def computing_device(placement: Placement, tokens: int, *, offloads: bool) -> Where:
    """Which device computes with a tensor in a pass of `tokens` tokens; `offloads` where there is a
    GPU, whether or not it holds any weights."""
    first = gpu_name(0)
    large = offloads and tokens >= OFFLOAD_TOKENS

    def where(tensor: TensorInfo) -> str:
        device = placement.device_of(tensor)
        if device == HOST and large and _is_block_matrix(tensor):
            return first
        return device

    return where


def _is_block_matrix(tensor: TensorInfo) -> bool:
    return tensor.layer is not None and len(tensor.shape) > 1


def copied_bytes(model: ModelSpec, placement: Placement, tokens: int) -> float:
    """Weights that a pass of `tokens` tokens copies to the first GPU."""
    if tokens < OFFLOAD_TOKENS:
        return 0.0
    experts = model.experts
    chosen = 1 - (1 - experts.used / experts.count) ** tokens if experts else 1.0
    total = 0.0
    for tensor in model.tensors:
        if placement.device_of(tensor) != HOST or not _is_block_matrix(tensor):
            continue
        if tensor.layer is not None and tensor.layer >= model.layer_count:
            continue  # MTP blocks are not part of the trunk's pass
        total += tensor.size_bytes * (chosen if is_routed_expert(tensor) else 1.0)
    return total


def offload_seconds(
    model: ModelSpec, placement: Placement, inventory: Inventory, tokens: int
) -> float | None:
    """Seconds that copying weights to the first GPU adds to a pass; None if its link is unknown.

    A GPU that shares the host's memory gets a copy too, within that memory.
    """
    size = copied_bytes(model, placement, tokens) if inventory.gpus else 0.0
    if size == 0:
        return 0.0
    gpu = inventory.gpus[0]
    bandwidth = inventory.memory.bandwidth if gpu.shared else None
    if gpu.link is not None and not gpu.shared:
        bandwidth = gpu.link.with_peak().bandwidth
    if bandwidth is None:
        return None
    rate = bandwidth.bytes_per_second * (COPY_SHARE if bandwidth.is_peak else 1.0)
    return size / rate


def crossing_seconds(model: ModelSpec, placement: Placement, tokens: int) -> float:
    """Seconds that changes of device add to a pass: between blocks, at the head, and twice in every
    block whose experts are computed by the host."""
    blocks = [*placement.blocks[: model.layer_count], placement.output]
    changes = sum(before != after for before, after in pairwise(blocks))
    on_host = [block for block in placement.expert_blocks_on_host if block < model.layer_count]
    if tokens < OFFLOAD_TOKENS:
        changes += 2 * len(on_host)
    return changes * CROSSING_SECONDS
