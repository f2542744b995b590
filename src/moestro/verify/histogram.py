"""A histogram on a logarithmic scale: quantiles of any number of values in fixed memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LOWEST, _HIGHEST = -12, 3
_BINS_PER_DECADE = 256
"""A bin is 0.9 % wide, so a quantile is off by less than that."""


class LogHistogram:
    """Counts of values ≥ 0 from 1e-12 to 1e3; what is smaller counts as 0."""

    def __init__(self) -> None:
        bins = (_HIGHEST - _LOWEST) * _BINS_PER_DECADE
        # One more at each end, for what lies outside.
        self._counts = np.zeros(bins + 2, np.int64)
        self._greatest = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Finite values ≥ 0."""
        if not len(values):
            return
        with np.errstate(divide="ignore"):
            places = (np.log10(values) - _LOWEST) * _BINS_PER_DECADE
        bins = np.clip(np.floor(places), -1, len(self._counts) - 2).astype(np.intp) + 1
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._greatest = max(self._greatest, float(values.max()))

    @property
    def total(self) -> int:
        return int(self._counts.sum())

    @property
    def greatest(self) -> float:
        return self._greatest

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of all lie; None without values.

        As in sorted values with linear interpolation: rank share·(n − 1), counted from 0.
        """
        if not self.total:
            return None
        rank = share * (self.total - 1)
        lower, part = int(rank), rank - int(rank)
        below = np.cumsum(self._counts)
        value = self._of_rank(lower, below)
        # In a thin tail the next value can be many bins further.
        return value + part * (self._of_rank(lower + 1, below) - value) if part else value

    def _of_rank(self, rank: int, below: NDArray[np.int64]) -> float:
        """The value with `rank` smaller ones, as far as its bin tells."""
        place = int(np.searchsorted(below, rank, side="right"))
        if place == 0:
            return 0.0
        if place == len(self._counts) - 1 or rank == self.total - 1:
            return self._greatest
        within = (rank - float(below[place - 1]) + 0.5) / float(self._counts[place])
        value = 10 ** (_LOWEST + (place - 1 + within) / _BINS_PER_DECADE)
        return float(min(value, self._greatest))

    def coarse(self, bins_per_decade: int = 8) -> tuple[list[float], list[int]]:
        """Edges [n + 1] and counts [n] from the first bin in use to the last, for a chart.

        The first count holds the smaller values too, zeros among them.
        """
        joined = _BINS_PER_DECADE // bins_per_decade
        inner = self._counts[1:-1].reshape(-1, joined).sum(axis=1)
        inner[-1] += self._counts[-1]
        used = np.flatnonzero(inner)
        first, last = (used[0], used[-1]) if len(used) else (0, 0)
        counts = inner[first : last + 1].copy()
        counts[0] += self._counts[0]
        edges = 10 ** (_LOWEST + np.arange(first, last + 2) / bins_per_decade)
        return [float(edge) for edge in edges], [int(count) for count in counts]
