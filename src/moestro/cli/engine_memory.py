"""What an engine owns now, and what it may own: of the host, and of NVIDIA's GPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from moestro.units import MIB

if TYPE_CHECKING:
    from moestro.gateway.growth import Memory

SPARE_BYTES = 512 * MIB
"""Host memory that stays free beside what engines take."""

DEVICE_SPARE_BYTES = 256 * MIB

RARELY_SECONDS = 2.0
"""For what takes milliseconds to ask: a GPU's memory, and what the machine can still give."""


class MemoryReader:
    """`host_budget_bytes` None: what the engine owns and what can still be had, less a reserve."""

    def __init__(self, host_budget_bytes: int | None = None) -> None:
        self._host_budget = host_budget_bytes
        self._device: tuple[int, int] | None = None
        self._room = 0
        self._pid: int | None = None
        self._asked = float("-inf")

    def __call__(self, pid: int) -> Mapping[str, Memory]:
        from moestro.gateway.growth import DEVICE, HOST, Memory
        from moestro.hardware.process_memory import own_bytes

        if self.slow(pid):
            self._ask_rarely(pid)
        found: dict[str, Memory] = {}
        own = own_bytes(pid)
        if own is not None:
            budget = own + self._room if self._host_budget is None else self._host_budget
            found[HOST] = Memory(own, budget)
        if self._device is not None:
            own, free = self._device
            found[DEVICE] = Memory(own, max(own + free - DEVICE_SPARE_BYTES, 0))
        return found

    def slow(self, pid: int) -> bool:
        """Whether the next call asks what takes long."""
        return pid != self._pid or time.monotonic() - self._asked >= RARELY_SECONDS

    def _ask_rarely(self, pid: int) -> None:
        from moestro.hardware.nvidia_state import nvidia_memory_of

        self._device, self._room = nvidia_memory_of(pid), room_bytes()
        self._pid, self._asked = pid, time.monotonic()


def room_bytes() -> int:
    """What an engine, or one more of them, can still have, within a container's limit; less than
    nothing in need."""
    import psutil

    from moestro.hardware.limits import read_limits
    from moestro.hardware.memory import available_bytes

    return available_bytes(psutil.virtual_memory().available, read_limits()) - SPARE_BYTES
