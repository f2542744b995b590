"""What plans that ran taught: predicted against observed, and how later forecasts use it.

A forecast's error is mostly a factor that belongs to the machine and the architecture, so what is
kept of a run is the ratio observed / predicted. Later forecasts are multiplied by the median ratio
of the same architecture (of all, where that one never ran), shrunk towards 1 while runs are few,
and their range is widened until it holds nine of ten of the ratios seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from moestro.planning.estimate import Estimate
from moestro.planning.settings import Source

PRIOR_RUNS = 2
"""One run moves a forecast by a third of its ratio, four by two thirds."""

KEPT = 200
"""Observations kept per machine; the oldest go first."""

SANE = (0.05, 20.0)
"""A ratio outside of this is a broken run, not a lesson."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One run. Rates in tokens per second, `memory` bytes of the engine's process on the host.

    `at` is an ISO date and time. None where nothing was predicted or observed. The prediction is
    the one for the run's own prompt and answer, before any earlier observation was applied;
    `source` is what it rested on (computed from measured rates, or assumed): ratios against the one
    say nothing about the other.
    """

    at: str
    model: str
    architecture: str
    decode_predicted: float | None = None
    decode_observed: float | None = None
    source: Source | None = None
    memory_predicted_bytes: int | None = None
    memory_observed_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def observations(stored: Any) -> tuple[Observation, ...]:
    """Observations out of what was stored; entries that are not such are left out."""
    found = []
    for entry in stored if isinstance(stored, list) else ():
        try:
            found.append(Observation(**entry))
        except TypeError:
            continue
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Residuals:
    """Ratios observed / predicted of decoding: (architecture, source of the prediction, ratio)."""

    decode: tuple[tuple[str, Source, float], ...] = ()

    @staticmethod
    def of(runs: Iterable[Observation]) -> Residuals:
        found = []
        for run in runs:
            predicted, observed = run.decode_predicted, run.decode_observed
            if predicted and observed and run.source is not None:
                ratio = observed / predicted
                if SANE[0] < ratio < SANE[1]:
                    found.append((run.architecture, run.source, ratio))
        return Residuals(tuple(found))


def corrected(estimate: Estimate, seen: Residuals, architecture: str) -> Estimate:
    """`estimate` after the ratios `seen`; the same object where none applies."""
    alike = [(name, ratio) for name, source, ratio in seen.decode if source == estimate.source]
    ratios = [ratio for name, ratio in alike if name == architecture] or [r for _, r in alike]
    if not ratios:
        return estimate
    weight = len(ratios) / (len(ratios) + PRIOR_RUNS)
    factor = math.exp(weight * math.log(median(ratios)))
    # What is left over after the shift, nine times out of ten.
    rest = sorted(abs(math.log(ratio / factor)) for ratio in ratios)
    spread = math.exp(rest[min(int(0.9 * len(rest)), len(rest) - 1)])
    expected = estimate.expected * factor
    return Estimate(
        expected,
        min(estimate.low * factor, expected / spread),
        max(estimate.high * factor, expected * spread),
        estimate.source,
    )
