"""How much faster, and how sure: ratios of paired measurements on a noisy machine.

Everything is done on logarithms: noise multiplies, and a ratio and its inverse weigh the same.

- *Centre*: Huber's M-estimate. Where all is well it is as sharp as the mean; a spike moves it by no
  more than a mild deviation would. A median would waste a third of what few pairs tell.
- *Spread*: pairs are few, so their own spread says little. The noise of everything measured in this
  search is pooled, per length of sample, and a comparison's own spread counts only where it is
  larger ("moderated" t: Smyth 2004, here with the pooled value as a floor).
- *Interval*: Student's t with the freedom of the pooled and the own spread together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PRIOR_SCALE = 0.042
"""Scatter of one pair's log-ratio before anything is known: 3 % a sample, times √2."""

PRIOR_FREEDOM = 4
SHARE_FREEDOM = 6
"""What is known of all lengths of samples together counts as so many pairs of one length."""

MOST_FREEDOM = 60
LEAST_SCALE = 0.002
HUBER = 1.5
CUT = 2.0
CUT_CONSISTENT = 0.9205
"""E[min(z², 2²)] of a normal z: what cutting deviations takes from their variance."""

MEDIAN_CONSISTENT = 0.4549
"""The median of z²."""

DISAGREE = 3.5
"""Two pairs this many of their own scatters apart: one of them was disturbed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio: what is expected of it, and the ends between which it lies 19 times of 20."""

    expected: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"expected": self.expected, "low": self.low, "high": self.high}


UNCHANGED = Interval(1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A logarithm of a ratio with its standard error. `doubtful`: too few pairs, or pairs that
    disagree, so that nothing may be decided by it."""

    log: float
    error: float
    freedom: int
    pairs: int
    doubtful: bool

    def bound(self, confidence: float, side: int) -> float:
        """The ratio that is not passed with `confidence`: below for side −1, above for +1."""
        # It brings numpy, and verbs that only read what was found here have no use for that.
        from moestro.routing.interval import student_quantile

        reach = student_quantile(confidence, self.freedom) * self.error
        return math.exp(self.log + side * reach)

    def low(self, confidence: float = 0.95) -> float:
        return self.bound(confidence, -1)

    def high(self, confidence: float = 0.95) -> float:
        return self.bound(confidence, 1)

    @property
    def expected(self) -> float:
        return math.exp(self.log)

    @property
    def interval(self) -> Interval:
        """Two-sided, 95 %."""
        return Interval(self.expected, self.low(0.975), self.high(0.975))

    def times(self, other: Ratio) -> Ratio:
        """The product of two ratios that were measured apart."""
        return Ratio(
            self.log + other.log,
            math.hypot(self.error, other.error),
            min(self.freedom, other.freedom),
            min(self.pairs, other.pairs),
            self.doubtful or other.doubtful,
        )


SAME = Ratio(0.0, 0.0, MOST_FREEDOM, 0, False)
"""Something compared with itself."""


def expected_gain(log: float, error: float) -> float:
    """E[max(x, 0)] of a normal x with that mean and deviation: what a closer look may bring, as a
    logarithm ("expected improvement": Jones, Schonlau and Welch 1998)."""
    if error <= 0:
        return max(log, 0.0)
    z = log / error
    below = 0.5 * math.erfc(-z / math.sqrt(2))
    return error * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) + log * below


@dataclass(frozen=True, slots=True)
class Pair:
    """One log-ratio of two values of the same part, at `share` of its length."""

    log: float
    share: float


class Noise:
    """The scatter of pairs on this machine, pooled over everything that was compared so far."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[Pair, ...]] = {}
        self._known: dict[float | None, tuple[float, int]] = {}

    def learn(self, key: object, pairs: Sequence[Pair]) -> None:
        """Pairs of one comparison; what was told under the same key before is replaced."""
        self._seen[key] = tuple(pairs)
        self._known.clear()

    def scale(self, share: float | None = None) -> tuple[float, int]:
        """Standard deviation of one pair's log-ratio, and the freedom behind it."""
        if share not in self._known:
            if share is None:
                found = _pooled(self._groups(None), PRIOR_SCALE, PRIOR_FREEDOM)
            else:
                prior, freedom = self.scale(None)
                weight = min(freedom, SHARE_FREEDOM)
                found = _pooled(self._groups(share), prior, weight)
            self._known[share] = max(found[0], LEAST_SCALE), found[1]
        return self._known[share]

    def _groups(self, share: float | None) -> list[list[float]]:
        groups: list[list[float]] = []
        for pairs in self._seen.values():
            by_share: dict[float, list[float]] = {}
            for pair in pairs:
                by_share.setdefault(pair.share, []).append(pair.log)
            groups += [logs for at, logs in by_share.items() if share in (None, at)]
        return [logs for logs in groups if len(logs) > 1]


def _pooled(groups: Iterable[Sequence[float]], prior: float, weight: int) -> tuple[float, int]:
    """The scatter within groups, with deviations beyond twice of it cut there: bursts of a
    neighbour are not noise. `prior` counts as `weight` degrees of freedom."""
    deviations: list[float] = []
    freedom = 0
    for logs in groups:
        middle = _median(logs)
        deviations += [x - middle for x in logs]
        freedom += len(logs) - 1
    if not freedom:
        return prior, weight
    # Deviations from a middle of their own are too small by as much as there is less freedom.
    squares = [x * x * len(deviations) / freedom for x in deviations]
    # From below: what starts from the raw scatter takes spikes for noise.
    variance = (_median(squares) / MEDIAN_CONSISTENT * freedom + weight * prior**2) / (
        freedom + weight
    )
    for _ in range(50):
        cut = sum(min(square, CUT**2 * variance) for square in squares) / CUT_CONSISTENT
        found = (cut * freedom / len(squares) + weight * prior**2) / (freedom + weight)
        if abs(found - variance) < 1e-3 * variance:
            break
        variance = found
    return math.sqrt(variance), freedom + weight


def estimate(pairs: Sequence[Pair], noise: Noise) -> Ratio | None:
    """The ratio behind pairs; None without any."""
    if not pairs:
        return None
    scales = [noise.scale(pair.share) for pair in pairs]
    logs, sigmas = [pair.log for pair in pairs], [scale for scale, _ in scales]
    centre = _huber(logs, sigmas)
    count = len(pairs)
    residuals = [(log - centre) / sigma for log, sigma in zip(logs, sigmas, strict=True)]
    known = min(min(freedom for _, freedom in scales), MOST_FREEDOM)
    own = sum(min(r * r, CUT**2) for r in residuals) / CUT_CONSISTENT
    widened = max((known + own) / (known + count - 1), 1.0)
    sound = (
        sum(1 / sigma**2 for r, sigma in zip(residuals, sigmas, strict=True) if abs(r) <= CUT)
        or 1 / min(sigmas) ** 2
    )
    return Ratio(
        log=centre,
        error=math.sqrt(widened / sound),
        freedom=min(known + count - 1, MOST_FREEDOM),
        pairs=count,
        doubtful=_disagree(logs, sigmas),
    )


def _disagree(logs: Sequence[float], sigmas: Sequence[float]) -> bool:
    """Whether the pairs leave open which of them were disturbed: fewer than two of them agree
    for each that does not."""
    if len(logs) < 2:
        return True
    if len(logs) == 2:
        return abs(logs[0] - logs[1]) > DISAGREE * math.hypot(*sigmas)
    middle = _median(logs)
    far = sum(abs(log - middle) > DISAGREE * sigma for log, sigma in zip(logs, sigmas, strict=True))
    return far * 3 > len(logs)


def _huber(logs: Sequence[float], sigmas: Sequence[float]) -> float:
    centre = _median(logs)
    for _ in range(50):
        weights = []
        for log, sigma in zip(logs, sigmas, strict=True):
            off = abs(log - centre) / sigma
            weights.append((1.0 if off <= HUBER else HUBER / off) / sigma**2)
        new = sum(w * x for w, x in zip(weights, logs, strict=True)) / sum(weights)
        if abs(new - centre) < 1e-7:
            break
        centre = new
    return centre


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
