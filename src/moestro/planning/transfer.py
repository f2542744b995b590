"""What moves between devices during a pass, and which device computes with it.

The engine computes where a weight lies, with one exception (`ggml_backend_sched`, `op_offload`):
products with weights in host memory and 32 tokens or more go to the first GPU, and the weights are
copied to it, of experts only those that some token chose. With a cache for experts
(`expert_cache`), passes of few tokens compute them on the block's GPU, and copy what it misses.
"""

from __future__ import annotations

from itertools import pairwise

from moestro.hardware import Inventory
from moestro.model import ModelSpec, TensorInfo
from moestro.planning.expert_cache import ExpertCache
from moestro.planning.placement import HOST, Placement, gpu_name, is_routed_expert
from moestro.planning.work import Where

OFFLOAD_TOKENS = 32
"""The smallest batch whose products leave the host (GGML_OP_OFFLOAD_MIN_BATCH's default)."""

COPY_SHARE = 0.5
"""Of the link's peak: weights are mapped from a file, not pinned, and headers take their part."""

CROSSING_SECONDS = 30e-6
"""One change of device: wait for it, copy the activations, start the next."""


def computing_device(
    placement: Placement, tokens: int, *, offloads: bool, cache: ExpertCache | None = None
) -> Where:
    """Which device computes with a tensor in a pass of `tokens` tokens; `offloads` where there is a
    GPU, whether or not it holds any weights."""
    first = gpu_name(0)
    large = offloads and tokens >= OFFLOAD_TOKENS
    through_cache = cache is not None and cache.takes(tokens)

    def where(tensor: TensorInfo) -> str:
        device = placement.device_of(tensor)
        if through_cache and _is_cached(cache, tensor):
            assert tensor.layer is not None
            return placement.blocks[tensor.layer]
        if device == HOST and large and _is_block_matrix(tensor):
            return first
        return device

    return where


def _is_cached(cache: ExpertCache | None, tensor: TensorInfo) -> bool:
    return cache is not None and tensor.layer in cache.blocks and is_routed_expert(tensor)


def _is_block_matrix(tensor: TensorInfo) -> bool:
    return tensor.layer is not None and len(tensor.shape) > 1


def copied_bytes(
    model: ModelSpec, placement: Placement, tokens: int, cache: ExpertCache | None = None
) -> float:
    """Weights that a pass of `tokens` tokens copies to a GPU; under uniform routing."""
    large = tokens >= OFFLOAD_TOKENS
    through_cache = cache is not None and cache.takes(tokens)
    if not large and not through_cache:
        return 0.0
    missed = 1.0 if cache is None else 1 - cache.share
    experts = model.experts
    chosen = 1 - (1 - experts.used / experts.count) ** tokens if experts else 1.0
    total = 0.0
    for tensor in model.tensors:
        if placement.device_of(tensor) != HOST or not _is_block_matrix(tensor):
            continue
        if tensor.layer is not None and tensor.layer >= model.layer_count:
            continue  # MTP blocks are not part of the trunk's pass
        if _is_cached(cache, tensor):  # large passes take from the cache what is there
            total += tensor.size_bytes * chosen * missed
        elif large:
            total += tensor.size_bytes * (chosen if is_routed_expert(tensor) else 1.0)
    return total


def offload_seconds(
    model: ModelSpec,
    placement: Placement,
    inventory: Inventory,
    tokens: int,
    cache: ExpertCache | None = None,
) -> float | None:
    """Seconds that copying weights to a GPU adds to a pass; None if the first one's link is
    unknown.

    A GPU that shares the host's memory gets a copy too, within that memory.
    """
    if not inventory.gpus:
        return 0.0
    gpu = inventory.gpus[0]
    within = _copied_within(model, placement, tokens, cache)
    if within and gpu.bandwidth is None:
        return None
    seconds = 2 * within / gpu.bandwidth.bytes_per_second if gpu.bandwidth else 0.0
    size = copied_bytes(model, placement, tokens, cache)
    if size == 0:
        return seconds
    bandwidth = inventory.memory.bandwidth if gpu.shared else None
    if gpu.link is not None and not gpu.shared:
        bandwidth = gpu.link.with_peak().bandwidth
    if bandwidth is None:
        return None
    rate = bandwidth.bytes_per_second * (COPY_SHARE if bandwidth.is_peak else 1.0)
    return seconds + size / rate


def _copied_within(
    model: ModelSpec, placement: Placement, tokens: int, cache: ExpertCache | None
) -> float:
    """Bytes of experts that a large pass takes from the cache, into a tensor of the whole block."""
    if cache is None or cache.takes(tokens) or tokens < OFFLOAD_TOKENS:
        return 0.0
    without = copied_bytes(model, placement, tokens)
    return without - copied_bytes(model, placement, tokens, cache)


def crossing_seconds(
    model: ModelSpec, placement: Placement, tokens: int, cache: ExpertCache | None = None
) -> float:
    """Seconds that changes of device add to a pass: between blocks, at the head, and twice in every
    block whose experts are computed by the host. A cache for experts has to know once in a block
    which ones were chosen."""
    blocks = [*placement.blocks[: model.layer_count], placement.output]
    changes = sum(before != after for before, after in pairwise(blocks))
    on_host = [block for block in placement.expert_blocks_on_host if block < model.layer_count]
    cached = cache.blocks if cache is not None and cache.takes(tokens) else frozenset()
    changes += len(cached)
    if tokens < OFFLOAD_TOKENS:
        changes += 2 * len([block for block in on_host if block not in cached])
    return changes * CROSSING_SECONDS
