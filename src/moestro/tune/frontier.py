"""Throughput against latency, over the number of users at once and over settings.

With a fixed number of users in a closed loop the two are one thing (Little's law, see `workload`):
what serves more requests answers each of them sooner. They part where the number of users is free:
more of them fill a batch better, and each waits longer. So a frontier has points of both kinds,
settings and users, and leaves the choice between those that nothing else beats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from moestro.planning.settings import Settings


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """`settings` with `streams` users at once: medians of `rounds` runs of the same requests.

    `ttft_seconds` and `time_per_token_seconds` are means over requests and tokens, as in
    `workload.costs`. `latency_seconds` is the 90th percentile of an answer of the workload's own
    length. `tokens_per_second` (of all users together) and `requests_per_second` follow from the
    means by Little's law. `best`: no other point is faster and answers as soon, or the other way
    round.
    """

    label: str
    settings: Settings
    streams: int
    tokens_per_second: float
    requests_per_second: float
    ttft_seconds: float
    time_per_token_seconds: float
    latency_seconds: float
    rounds: int = 1
    best: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "settings": self.settings.to_json(),
            "streams": self.streams,
            "tokens_per_second": self.tokens_per_second,
            "requests_per_second": self.requests_per_second,
            "ttft_seconds": self.ttft_seconds,
            "time_per_token_seconds": self.time_per_token_seconds,
            "latency_seconds": self.latency_seconds,
            "rounds": self.rounds,
            "best": self.best,
        }


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Relative: two points closer than this cannot be told apart."""

    tokens_per_second: float = 0.0
    latency: float = 0.0

    def to_json(self) -> dict[str, float]:
        return {"tokens_per_second": self.tokens_per_second, "latency": self.latency}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Settings, or a number of users, that the frontier lacks, and why."""

    label: str
    sentence: str

    def to_json(self) -> dict[str, str]:
        return {"label": self.label, "sentence": self.sentence}


@dataclass(frozen=True, slots=True)
class Frontier:
    """`points` by users, then in the order of the settings. Empty where the budget was too short or
    nothing ran: `left_out` says."""

    points: tuple[FrontierPoint, ...]
    tolerance: Tolerance = Tolerance()
    left_out: tuple[LeftOut, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "points": [point.to_json() for point in self.points],
            "tolerance": self.tolerance.to_json(),
            "left_out": [one.to_json() for one in self.left_out],
        }


def marked(points: Iterable[FrontierPoint], tolerance: Tolerance) -> tuple[FrontierPoint, ...]:
    """The same points with `best` set where no other one dominates."""
    every = tuple(points)
    return tuple(
        replace(point, best=not any(dominates(other, point, tolerance) for other in every))
        for point in every
    )


def dominates(one: FrontierPoint, other: FrontierPoint, tolerance: Tolerance) -> bool:
    """Clearly better in throughput or latency, and not clearly worse in the other.

    Points within the tolerance of each other so stay beside each other. No circle of points can
    dominate each other: whoever gains more than the tolerance in every step of a circle would have
    to lose more than it in another. So one point at least is always left.
    """
    faster = math.log(one.tokens_per_second / other.tokens_per_second)
    sooner = math.log(other.latency_seconds / one.latency_seconds)
    margins = (
        (faster, math.log1p(tolerance.tokens_per_second)),
        (sooner, math.log1p(tolerance.latency)),
    )
    return any(gain > least for gain, least in margins) and all(
        gain >= -least for gain, least in margins
    )
