"""Does memory grow with every request? The floor under its ups and downs, and the slope of it.

Memory rises and falls with what is computed. What a leak does is lift the *floor*: the least that
was seen over a stretch of requests. Floors are kept over stretches of several lengths, so that a
fast leak is seen within a hundred requests and a slow one within thousands. The slope is Theil and
Sen's, the median of the slopes between pairs of floors: a third of them may be anything. Its bounds
are Sen's, from the distribution of Kendall's tau (P. K. Sen, “Estimates of the Regression
Coefficient Based on Kendall's Tau”, JASA 63, 1968). A buffer that was made once, in the middle of
what is looked at, is as good as a leak to both of them; so pairs are taken on either side of the
largest step, and none across it. The bounds are then those of two samples with one slope (R. M.
Hirsch, J. R. Slack, R. A. Smith, “Techniques of Trend Analysis for Monthly Water Quality Data”,
Water Resources Research 18, 1982).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median

SHORTEST = 8
"""Requests of the shortest stretches. The first one is left out: caches and buffers are made
then."""

LONGER = 4
"""How many stretches make one of the next length."""

LENGTHS = 6
"""8, 32, 128, 512, 2,048 and 8,192 requests."""

MOST_FLOORS = 32
RECENT_FLOORS = 12
"""The last of them are looked at alone, too: most of an engine's life may have been quiet."""

LEAST_FLOORS = 6
SAMPLES = 2
"""At least so many are in every stretch."""

Z = 1.96
"""Bounds that hold the slope in 95 of 100 cases."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least memory in bytes over the requests up to number `request`."""

    request: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes per request; `low` and `high` bound it. `requests` is what was looked at."""

    value: float
    low: float
    high: float
    requests: int

    @property
    def rises(self) -> bool:
        return self.low > 0


def theil_sen(floors: Sequence[Floor]) -> Slope | None:
    """None with fewer than `LEAST_FLOORS`."""
    if len(floors) < LEAST_FLOORS:
        return None
    steps = [later.bytes - earlier.bytes for earlier, later in pairwise(floors)]
    largest = steps.index(max(steps)) + 1
    sides = floors[:largest], floors[largest:]
    slopes = sorted(
        (later.bytes - earlier.bytes) / (later.request - earlier.request)
        for side in sides
        for earlier, later in combinations(side, 2)
    )
    half = Z * math.sqrt(sum(_variance(len(side)) for side in sides)) / 2
    middle = len(slopes) / 2
    # Sen's M1-th and M2+1-th, counted from one.
    low = max(int(middle - half) - 1, 0)
    high = min(math.ceil(middle + half), len(slopes) - 1)
    requests = floors[-1].request - floors[0].request
    return Slope(median(slopes), slopes[low], slopes[high], requests)


def _variance(count: int) -> float:
    """Of Kendall's S, the pairs that rise less those that fall, where nothing rises."""
    return count * (count - 1) * (2 * count + 5) / 18


class Floors:
    """What memory does over an engine's life, in a bounded number of floors."""

    def __init__(self) -> None:
        self.first: Floor | None = None
        """Of the first stretch that counts."""
        self.last: Floor | None = None

        self._lines: list[deque[Floor]] = [deque(maxlen=MOST_FLOORS) for _ in range(LENGTHS)]
        self._open: list[list[Floor]] = [[] for _ in range(LENGTHS)]
        self._least: int | None = None
        self._samples = 0
        self._begun = 0
        self._warm = False

    def add(self, requests: int, bytes_: int) -> bool:
        """Memory after so many requests. Whether a stretch ended with it."""
        self._least = bytes_ if self._least is None else min(self._least, bytes_)
        self._samples += 1
        if requests - self._begun < SHORTEST or self._samples < SAMPLES:
            return False
        floor = Floor(requests, self._least)
        self._begun, self._least, self._samples = requests, None, 0
        if not self._warm:
            self._warm = True
            return False
        self.first = self.first or floor
        self.last = floor
        self._keep(0, floor)
        return True

    def _keep(self, length: int, floor: Floor) -> None:
        self._lines[length].append(floor)
        if length + 1 == LENGTHS:
            return
        waiting = self._open[length]
        waiting.append(floor)
        if len(waiting) == LONGER:
            self._keep(length + 1, Floor(floor.request, min(one.bytes for one in waiting)))
            waiting.clear()

    def slopes(self) -> list[Slope]:
        """Over stretches of each length that has enough, the last one over the longest."""
        lines = [list(line) for line in self._lines]
        looks = [look for line in lines for look in (line[-RECENT_FLOORS:], line)]
        return [slope for look in looks if (slope := theil_sen(look)) is not None]
