"""A figure and how far it may be off: bootstrap intervals over groups of text.

Tokens of one text resemble each other, so they say less than as many independent ones would. What
is drawn again is therefore whole groups (chunks, or runs of chunks), never tokens: the cluster
bootstrap (Efron 1979; Davison and Hinkley 1997, ch. 3.8). The interval is Efron's BCa (1987), which
corrects for bias and skew, with the tails widened by Student's t as few groups ask for (Hesterberg
2015, “expanded percentile”). Below five groups there is too little to draw from: then it is
Student's interval with the jackknife's standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 20261
UNBOUNDED = (-math.inf, math.inf)
_LEAST_GROUPS_TO_DRAW = 5
_NORMAL = NormalDist()

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Sums [n, columns] → one figure for each of the n."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`value`, and the ends between which it lies with 95 % confidence for text of this kind.
    They are None where there was a single group: nothing is known of how figures scatter."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap_mean(
    sums: ArrayLike,
    counts: ArrayLike,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """The mean of something over tokens: Σ sums / Σ counts, both [groups].

    Groups may differ in size. `bounds` are those between which any mean must lie. None if the
    counts are all zero.
    """
    columns = np.stack([np.asarray(sums, np.float64), np.asarray(counts, np.float64)], axis=1)
    return bootstrap(columns, ratio, bounds=bounds, seed=seed, resamples=resamples)


def ratio(sums: Floats) -> Floats:
    """First column over second; NaN where the second is zero."""
    top, bottom = sums[:, 0], sums[:, 1]
    unknown = np.full(len(sums), np.nan)
    return np.asarray(np.divide(top, bottom, out=unknown, where=bottom != 0))


def bootstrap(
    sums: Floats,
    statistic: Statistic,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """An interval for `statistic` of the sums over all groups; `sums` is [groups, columns].

    Groups whose columns are all zero count as not there. The same seed gives the same interval.
    None where the statistic has no finite value.
    """
    present = sums[np.any(sums != 0, axis=1)]
    groups = len(present)
    total = present.sum(axis=0)
    value = float(statistic(total[None, :])[0]) if groups else math.nan
    if not math.isfinite(value):
        return None
    if groups == 1:
        return Interval(value, None, None)
    left_out = statistic(total[None, :] - present)
    if not np.isfinite(left_out).all():
        return Interval(value, None, None)  # it hangs on one group
    if groups < _LEAST_GROUPS_TO_DRAW:
        spread = left_out - left_out.mean()
        error = math.sqrt((groups - 1) / groups * float(spread @ spread))
        reach = student_quantile(1 - (1 - CONFIDENCE) / 2, groups - 1) * error
        return Interval(value, max(value - reach, bounds[0]), min(value + reach, bounds[1]))
    drawn = statistic(_draws(groups, resamples, seed) @ present)
    return Interval(value, *_bca(value, drawn[np.isfinite(drawn)], left_out))


@lru_cache(maxsize=8)
def _draws(groups: int, resamples: int, seed: int) -> Floats:
    """How often each group is drawn, [resamples, groups]; each row sums to `groups`."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    return drawn.astype(np.float64)


def _bca(value: float, drawn: Floats, left_out: Floats) -> tuple[float, float]:
    groups = len(left_out)
    # Sums in another order differ in their last digits; those are ties, not a bias.
    near = 1e-12 * max(abs(value), 1e-300)
    below = np.count_nonzero(drawn < value - near)
    level = np.count_nonzero(np.abs(drawn - value) <= near)
    share = (below + level / 2) / len(drawn)
    if share in (0.0, 1.0) or level == len(drawn):
        return float(min(drawn.min(), value)), float(max(drawn.max(), value))
    bias = _NORMAL.inv_cdf(share)
    lean = left_out.mean() - left_out
    scale = float(lean @ lean) ** 1.5
    acceleration = float((lean**3).sum()) / (6 * scale) if scale > 0 else 0.0
    reach = math.sqrt(groups / (groups - 1)) * student_quantile(
        1 - (1 - CONFIDENCE) / 2, groups - 1
    )

    def end(z: float) -> float:
        moved = bias + z
        levelled = bias + moved / max(1 - acceleration * moved, 1e-3)
        return float(np.quantile(drawn, _NORMAL.cdf(levelled)))

    return end(-reach), end(reach)


@lru_cache(maxsize=256)
def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t, for `probability` of 0.5 to 0.9995.

    With t = √ν·tan θ the density becomes cos^(ν−1) θ, which is summed on a grid: better than
    1e-4 of the value. Above 200 degrees of freedom the normal quantile, corrected to first order.
    """
    if freedom > 200:
        z = _NORMAL.inv_cdf(probability)
        return z + (z**3 + z) / (4 * freedom)
    angles = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp((probability - 0.5) * 2, area / area[-1], angles)
    return math.sqrt(freedom) * math.tan(float(angle))
