"""Bytes that one token of decoding reads on each device."""

from __future__ import annotations

from collections import Counter

from moestro.model import ModelSpec, Role
from moestro.model.roles import is_lookup
from moestro.planning.placement import HOST, Placement, is_routed_expert
from moestro.planning.settings import Settings


def read_bytes(
    model: ModelSpec,
    settings: Settings,
    placement: Placement,
    depth: int,
    cached_blocks: frozenset[int] = frozenset(),
) -> dict[str, int]:
    """Weights that every token passes, k of E experts, and the cache of `depth` tokens.

    Not read: single rows of the embedding table, MTP blocks, experts that are not chosen. A window
    is read as far as it reaches; a recurrent state is read and written. The experts of
    `cached_blocks` are counted on the GPU: at best all of them are in its cache.
    """
    found: Counter[str] = Counter()
    count, used = (model.experts.count, model.experts.used) if model.experts else (1, 1)
    for tensor in model.tensors:
        if tensor.role is Role.MTP:
            continue
        if is_lookup(tensor.name):
            if model.tied_embeddings and tensor.name == "token_embd.weight":
                found[placement.output] += tensor.size_bytes
            continue
        share = (used, count) if is_routed_expert(tensor) else (1, 1)
        device = placement.device_of(tensor)
        if is_routed_expert(tensor) and tensor.layer in cached_blocks:
            assert tensor.layer is not None
            device = placement.blocks[tensor.layer]
        found[device] += tensor.size_bytes * share[0] // share[1]
    for layer in model.trunk_layers or ():
        device = HOST if settings.cache_on_host else placement.blocks[layer.index]
        for store in layer.stores:
            cells = depth if store.window is None else min(depth, store.window)
            cells = -(-cells // store.tokens_per_cell)
            found[device] += cells * store.cell_bytes(settings.cache_type_k, settings.cache_type_v)
        found[device] += 2 * layer.state_bytes
    return dict(found)
