"""The engine's cache, on GPUs, for experts that stay in host memory (`llama-moe-cache.cpp`).

The size asked for is shared among the GPUs that have such experts like the layers, and on a GPU
among groups of blocks whose experts are of the same types and shapes, in proportion to their bytes.
A group gets as many whole slots (one expert each) as its budget holds, and one more for reads past
the end. The host keeps a map of slots for each block.

A pass of few tokens is computed on the GPU then; experts that are not in the cache are copied there
first, in place of those that were used least recently. Under uniform routing an expert is found as
often as there are slots for the experts. Real text comes back to some of them, so it finds more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from moestro.model import ModelSpec, Role, TensorInfo
from moestro.planning.placement import HOST, Placement, gpu_name, is_routed_expert
from moestro.planning.settings import Settings
from moestro.planning.weights import GPU_ALIGNMENT, HOST_ALIGNMENT

_ORDER = ("ffn_gate_up_exps", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
_SLOT_BYTES = 4

Layout = tuple[tuple[str, tuple[int, ...]], ...]


MOST_TOKENS = 32
"""The largest pass that goes through the cache (`max_batch`)."""


@dataclass(frozen=True, slots=True)
class ExpertCache:
    """`sizes` are bytes on each GPU, and of the maps on the host. `blocks` are those whose experts
    go through the cache (a group that is too small gets none), `share` is how much of them the
    slots hold, `most_tokens` the largest pass that does so."""

    sizes: dict[str, int]
    blocks: frozenset[int]
    share: float
    most_tokens: int

    def takes(self, tokens: int) -> bool:
        """Whether a pass of that size goes through the cache."""
        return tokens <= self.most_tokens


@dataclass
class _Group:
    """Blocks on one GPU whose experts look alike. `expert_bytes` are of one expert's matrices."""

    expert_bytes: tuple[int, ...]
    experts: int
    blocks: list[int] = field(default_factory=list)
    host_bytes: int = 0

    def alloc_bytes(self, slots: int) -> int:
        sizes = (size * (slots + 1) for size in self.expert_bytes)
        return sum(size + -size % GPU_ALIGNMENT for size in sizes)

    def slots(self, budget_bytes: int) -> int:
        """The most slots whose banks fit into the budget."""
        low, high = 0, len(self.blocks) * self.experts
        while low < high:
            middle = (low + high + 1) // 2
            if self.alloc_bytes(middle) <= budget_bytes:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass
class _Device:
    groups: dict[Layout, _Group] = field(default_factory=dict)

    @property
    def host_bytes(self) -> int:
        return sum(group.host_bytes for group in self.groups.values())


def expert_cache(
    model: ModelSpec,
    settings: Settings,
    placement: Placement,
    gpu_free_bytes: Sequence[int],
    *,
    with_mtp: bool,
) -> ExpertCache | None:
    """The cache that `settings` ask for; None without one, or if it has no room for the experts of
    one token."""
    if not settings.expert_cache_bytes or model.experts is None:
        return None
    devices = _groups(model, placement, with_mtp=with_mtp)
    names = [gpu_name(number) for number in range(len(gpu_free_bytes))]
    shares = dict(zip(names, settings.tensor_split or gpu_free_bytes, strict=False))
    total = sum(shares.get(name, 0) for name in devices) or 1
    found: dict[str, int] = {}
    maps_bytes, held_bytes, tokens = 0, 0.0, MOST_TOKENS
    cached: list[_Group] = []
    for name, device in devices.items():
        for group in device.groups.values():
            share = shares.get(name, 0) / total * group.host_bytes / device.host_bytes
            slots = group.slots(int(settings.expert_cache_bytes * share))
            if slots < model.experts.used:
                continue
            found[name] = found.get(name, 0) + group.alloc_bytes(slots)
            map_bytes = _SLOT_BYTES * group.experts
            maps_bytes += len(group.blocks) * (map_bytes + -map_bytes % HOST_ALIGNMENT)
            held_bytes += group.host_bytes * slots / (len(group.blocks) * group.experts)
            cached.append(group)
            if slots < group.experts:
                tokens = min(tokens, slots // model.experts.used)
    if not found:
        return None
    blocks = frozenset(block for group in cached for block in group.blocks)
    share = held_bytes / sum(group.host_bytes for group in cached)
    return ExpertCache({HOST: maps_bytes, **found}, blocks, share, tokens)


def _groups(model: ModelSpec, placement: Placement, *, with_mtp: bool) -> dict[str, _Device]:
    by_block: dict[int, list[TensorInfo]] = {}
    for tensor in model.tensors:
        if (
            tensor.layer in placement.expert_blocks_on_host
            and is_routed_expert(tensor)
            and tensor.name.endswith(".weight")
            and (with_mtp or tensor.role is not Role.MTP)
        ):
            by_block.setdefault(tensor.layer or 0, []).append(tensor)
    devices: dict[str, _Device] = {}
    for block in sorted(by_block):
        tensors = sorted(by_block[block], key=_order)
        layout = tuple((tensor.type, tensor.shape) for tensor in tensors)
        groups = devices.setdefault(placement.blocks[block], _Device()).groups
        if layout not in groups:
            experts = tensors[0].shape[2]
            groups[layout] = _Group(tuple(t.size_bytes // experts for t in tensors), experts)
        groups[layout].blocks.append(block)
        groups[layout].host_bytes += sum(tensor.size_bytes for tensor in tensors)
    return devices


def _order(tensor: TensorInfo) -> int:
    kind = tensor.name.split(".")[2]
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
