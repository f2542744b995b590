"""What others took of the processors while something was measured.

Threads that compute together meet after every operation, so whoever takes one of the processors
holds up all of them: where 19 % of the time was taken, answers took 1.7 times as long, with 27 %
2.6 times, of an engine whose threads soon slept while they waited (docs/lab-log.md). The kernel
counts that time, so nobody has to guess from the figures which of them were disturbed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import psutil

LIMIT = 0.03
"""Of the processors' time, above what is usual here; the clock that counts it is this coarse in a
sample of a second."""

MOST_KEPT = 64


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of all processors together: passed, stolen by other guests of the host, spent on
    programs, and of these on ours."""

    passed: float
    stolen: float
    spent: float
    ours: float


def usage(pids: Iterable[int]) -> Usage:
    """As it is now. `pids` are ours; those that have ended count nothing."""
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    waiting = times.idle + getattr(times, "iowait", 0.0)
    names = ("user", "nice", "system", "irq", "softirq")
    spent = sum(getattr(times, name, 0.0) for name in names)
    return Usage(spent + waiting + stolen, stolen, spent, sum(map(_seconds, pids)))


def taken(before: Usage, after: Usage) -> float:
    """The part of the processors' time between the two that went to others, 0 to 1."""
    passed = after.passed - before.passed
    if passed <= 0:
        return 0.0
    others = (after.spent - before.spent) - (after.ours - before.ours)
    stolen = after.stolen - before.stolen
    return min(max((max(others, 0.0) + stolen) / passed, 0.0), 1.0)


class Usual:
    """What is usual on this machine: a server that is always half busy is not disturbed by that."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def learn(self, disturbance: float) -> None:
        self._seen = [*self._seen[1 - MOST_KEPT :], disturbance]

    def exceeded(self, disturbance: float) -> bool:
        return disturbance > LIMIT + (median(self._seen) if self._seen else 0.0)

    def judge(self, disturbance: float) -> bool:
        """Whether it exceeds what was usual so far; it is learned then."""
        exceeded = self.exceeded(disturbance)
        self.learn(disturbance)
        return exceeded


def _seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
