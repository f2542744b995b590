"""Bounds for what the engine would else let grow: its prompt cache and its context checkpoints."""

from __future__ import annotations

from moestro.units import GIB, MIB

PROMPT_CACHE_SHARE = 0.05
PROMPT_CACHE_MAX_BYTES = 1 * GIB
"""The engine's own default is 8 GiB, which people meet as a leak."""

CHECKPOINTS_SHARE = 0.05
CHECKPOINTS_MAX = 8
CHECKPOINTS_MAX_BYTES = 512 * MIB
"""Context checkpoints of all slots. The engine's default, 32 per slot, has no byte bound."""


def prompt_cache_bytes(left_bytes: int) -> int:
    """Bytes for the prompt cache where `left_bytes` of host memory are left; whole MiB."""
    size_bytes = max(min(int(left_bytes * PROMPT_CACHE_SHARE), PROMPT_CACHE_MAX_BYTES), 0)
    return size_bytes - size_bytes % MIB


def checkpoints(left_bytes: int, checkpoint_bytes: int, parallel: int) -> int:
    """Checkpoints per slot where one takes `checkpoint_bytes` of `left_bytes` of host memory."""
    if checkpoint_bytes <= 0:
        return 0
    room_bytes = max(min(CHECKPOINTS_MAX_BYTES, int(left_bytes * CHECKPOINTS_SHARE)), 0)
    return min(CHECKPOINTS_MAX, room_bytes // (checkpoint_bytes * parallel))
