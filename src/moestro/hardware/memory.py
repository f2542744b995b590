"""Main memory: how much, how much of it can be had, how fast."""

from __future__ import annotations

from dataclasses import dataclass

from moestro.hardware.bandwidth import Bandwidth
from moestro.hardware.facts import check_not_negative, check_order, check_positive
from moestro.hardware.limits import Limits


@dataclass(frozen=True, slots=True)
class Memory:
    """`available_bytes` is what can be had now, within `limit_bytes` of a container.

    `total_bytes` is what is built in. `kind` is such as `DDR5-5600`. `unified` means that a GPU
    works in this same memory.
    """

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    kind: str | None = None
    channels: int | None = None
    bandwidth: Bandwidth | None = None
    unified: bool = False

    def __post_init__(self) -> None:
        check_positive(memory=self.total_bytes, memory_channels=self.channels)
        check_not_negative(
            available_memory=self.available_bytes,
            memory_limit=self.limit_bytes,
            swap=self.swap_total_bytes,
            free_swap=self.swap_free_bytes,
        )
        check_order("Available memory", self.available_bytes, "all memory", self.total_bytes)
        check_order("Free swap", self.swap_free_bytes, "all swap", self.swap_total_bytes)

    @property
    def usable_total_bytes(self) -> int:
        """What is built in or, where smaller, the container's limit."""
        return min(self.total_bytes, self.limit_bytes or self.total_bytes)


def this_memory(limits: Limits) -> Memory:
    """Asks the kernel. `limits` is what the container leaves."""
    import psutil  # here, because the set-up imports this room before anything is installed

    memory = psutil.virtual_memory()
    swap = psutil.swap_memory()
    limit = limits.memory_bytes
    return Memory(
        total_bytes=memory.total,
        available_bytes=min(available_bytes(memory.available, limits), memory.total),
        limit_bytes=limit if limit is not None and limit < memory.total else None,
        swap_total_bytes=swap.total,
        swap_free_bytes=min(swap.free, swap.total),
    )


def available_bytes(host_bytes: int, limits: Limits) -> int:
    """What can still be had: the host's free memory, or what a container's limit leaves of it."""
    if limits.memory_bytes is None:
        return host_bytes
    return max(min(host_bytes, limits.memory_bytes - (limits.memory_used_bytes or 0)), 0)
