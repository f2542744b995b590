"""When a virtual machine's processors were taken away, to a hundredth of a second.

The host gives the processors of a virtual machine to other guests at times; the kernel counts that
as steal. A thread reads the counters as often as they move. With two threads that meet after every
operation, whoever lost its processor keeps the other waiting: so in each moment the processor that
lost most counts.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, bisect_right
from pathlib import Path

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_STEAL = 8
"""Column of /proc/stat."""


class Stolen:
    """Keeps the counters from `with` to its end. `seconds` is 0 where the system does not count."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._lost: list[float] = []  # seconds up to then, of the processor that lost most
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Stolen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(2 * TICK_SECONDS)
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        before, total = _counters(), 0.0
        while not self._ended.wait(TICK_SECONDS):
            now = _counters()
            total += max((b - a for a, b in zip(before, now, strict=True)), default=0.0)
            self._times.append(time.monotonic())
            self._lost.append(total)
            before = now

    def seconds(self, begin: float, end: float) -> float:
        """Lost between two moments of the monotonic clock; a tick that reaches over an end counts.
        Ask after the end only."""
        first = bisect_right(self._times, begin) - 1
        last = min(bisect_left(self._times, end), len(self._times) - 1)
        if last < 0:
            return 0.0
        return self._lost[last] - (self._lost[first] if first >= 0 else 0.0)


def _counters() -> list[float]:
    """Seconds stolen from each processor so far."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if line.startswith("cpu") and line[3].isdigit()]
    return [int(line[_STEAL]) * TICK_SECONDS for line in fields if len(line) > _STEAL]
