"""What a search found: settings, how much they gain, and everything that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moestro.planning.settings import Reason, Settings
from moestro.tune.arena import Outcome
from moestro.tune.depth import DepthCurve
from moestro.tune.frontier import Frontier
from moestro.tune.statistics import Interval

TriedOutcome = (
    Literal["start", "chosen", "won", "lost", "no-difference", "excluded", "not-reached"] | Outcome
)
"""`won`: it was the incumbent for a time. `excluded`: never run, see `sentence`."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One row of the table. `label` says what was changed, `axis` what question it answered.

    `ratio` is to the starting settings, above 1 where it is better; for what was compared with
    another incumbent it is the product of both comparisons. `direct` is to `against`, which it ran
    beside, in `pairs` pairs. `objective` is the mean of its values at the longest share of the
    workload that it ran. `figures` are medians. None where nothing was measured.
    """

    label: str
    axis: str
    outcome: TriedOutcome
    sentence: str
    settings: Settings | None = None
    objective: float | None = None
    ratio: Interval | None = None
    direct: Interval | None = None
    against: str | None = None
    pairs: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "axis": self.axis,
            "settings": None if self.settings is None else self.settings.to_json(),
            "objective": self.objective,
            "ratio": _json(self.ratio),
            "outcome": self.outcome,
            "sentence": self.sentence,
            "against": self.against,
            "ratio_direct": _json(self.direct),
            "pairs": self.pairs,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class TuneResult:
    """`gain` is of `settings` over `start` on the workload's objective, from pairs that took no
    part in choosing them (`confirmed`); None where the starting settings could not be measured.

    `complete` is False where the search was stopped or ran out of budget: `stopped` says which.
    `noise` is the scatter (standard deviation, relative) of one measurement; `disturbed` how many
    rounds did not count, because somebody else wanted the processors.
    """

    objective: str
    start: Settings
    settings: Settings
    gain: Interval | None
    confirmed: bool
    trials: tuple[Tried, ...]
    reasons: tuple[Reason, ...]
    spent_seconds: float
    budget_seconds: float
    noise: float
    complete: bool = True
    stopped: str | None = None
    disturbed: int = 0
    curve: DepthCurve | None = None
    frontier: Frontier | None = None
    workload: str = ""
    engine: str = ""
    engine_version: str = ""

    def but(self, **changes: Any) -> TuneResult:
        """With what the caller knows: workload, engine's version, curve, frontier."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "gain": _json(self.gain),
            "confirmed": self.confirmed,
            "settings": self.settings.to_json(),
            "start": self.start.to_json(),
            "trials": [tried.to_json() for tried in self.trials],
            "spent_seconds": self.spent_seconds,
            "budget_seconds": self.budget_seconds,
            "reasons": [reason.to_json() for reason in self.reasons],
            "complete": self.complete,
            "stopped": self.stopped,
            "noise": self.noise,
            "disturbed": self.disturbed,
            "curve": None if self.curve is None else self.curve.to_json(),
            "frontier": None if self.frontier is None else self.frontier.to_json(),
            "workload": self.workload,
            "engine": self.engine,
            "engine_version": self.engine_version,
        }


def _json(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval.to_json()
