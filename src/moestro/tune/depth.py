"""Speed per depth of drafting and concurrency: which depth pays for text that is accepted so.

Depth is fixed while an engine runs, acceptance drifts with the text. So what the machine costs (the
seconds of one verification step) is kept apart from what the text gives (the tokens that a step
yields), and a new acceptance needs no new measurement:

    tokens a step   E(d) = 1 + Σ_{i≤d} Π_{j≤i} a_j      a_j: the j-th draft token is accepted,
                                                        given that those before it were
    tokens/second   n · E(d) / s(d, n)                  n streams, s seconds of a step of all

A step writes one token of each stream besides the accepted drafts, so of `tokens` written with
`accepted` drafts among them there were (tokens − accepted) / n steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moestro.tune.statistics import Interval

DEPTHS = (0, 1, 2, 3, 4)
STREAMS = (1, 2, 4, 8)
WORTH_A_RESTART = 0.05
"""By how much another depth has to be faster before an engine is started anew for it: a restart
costs what the new depth has to earn, and acceptance swings back."""

_MOST_CELLS = 1024
_MOST_DEPTH = 64
_MOST_STREAMS = 65536


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one verification step, drafting included, in `low` … `high` 19 times of 20."""

    seconds: float
    low: float
    high: float


def step_seconds(
    decode_seconds: float, output_tokens: int, accepted: int, streams: int
) -> float | None:
    """Seconds of a step out of a run in which `streams` streams wrote `output_tokens` together in
    `decode_seconds` of the clock, `accepted` of them drafts. None where that is no run."""
    own = output_tokens - accepted
    if own <= 0 or decode_seconds <= 0 or streams < 1 or accepted < 0:
        return None
    return decode_seconds * streams / own


def tokens_per_step(acceptance: Sequence[float], depth: int) -> float:
    """E(depth). Places beyond those given are taken to be accepted like the last one; without any
    nothing is."""
    total = kept = 1.0
    for place in range(depth):
        if not acceptance:
            return 1.0
        kept *= min(max(acceptance[min(place, len(acceptance) - 1)], 0.0), 1.0)
        total += kept
    return total


def acceptance_of(accepted: Sequence[float], steps: float) -> tuple[float, ...]:
    """a_j out of how often each place was accepted in `steps` steps (vLLM's
    `num_accepted_tokens_per_pos`); ends at the first place that never was."""
    found: list[float] = []
    before = steps
    for count in accepted:
        if before <= 0:
            break
        found.append(min(count / before, 1.0))
        before = count
    return tuple(found)


@dataclass(frozen=True, slots=True)
class DepthCurve:
    """`steps` by (depth, streams). Between measured numbers of streams the seconds follow a line
    that is straight in both logarithms; outside they are those of the nearest one."""

    steps: Mapping[tuple[int, int], Step]

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(sorted({depth for depth, _ in self.steps}))

    @property
    def streams(self) -> tuple[int, ...]:
        return tuple(sorted({streams for _, streams in self.steps}))

    def step(self, depth: int, streams: int) -> Step | None:
        """None where that depth was not measured."""
        known = sorted(at for d, at in self.steps if d == depth)
        if not known:
            return None
        below = max((at for at in known if at <= streams), default=known[0])
        above = min((at for at in known if at >= streams), default=known[-1])
        low, high = self.steps[depth, below], self.steps[depth, above]
        if below == above:
            return low
        part = math.log(streams / below) / math.log(above / below)

        def between(one: float, other: float) -> float:
            return math.exp((1 - part) * math.log(one) + part * math.log(other))

        return Step(
            between(low.seconds, high.seconds),
            between(low.low, high.low),
            between(low.high, high.high),
        )

    def tokens_per_second(
        self, depth: int, acceptance: Sequence[float], streams: int
    ) -> Interval | None:
        """Of all streams together; the range is the step's, acceptance is taken as it is given."""
        step = self.step(depth, streams)
        if step is None:
            return None
        tokens = streams * tokens_per_step(acceptance, depth)
        return Interval(tokens / step.seconds, tokens / step.high, tokens / step.low)

    def best_depth(self, acceptance: Sequence[float], streams: int) -> int | None:
        """The fastest; of equals the shallowest. None where nothing was measured."""
        best, fastest = None, 0.0
        for depth in self.depths:
            speed = self.tokens_per_second(depth, acceptance, streams)
            if speed is not None and speed.expected > fastest * (1 + 1e-9):
                best, fastest = depth, speed.expected
        return best

    def switch(
        self,
        depth: int,
        acceptance: Sequence[float],
        streams: int,
        *,
        worth: float = WORTH_A_RESTART,
    ) -> int | None:
        """The depth to change to at the next restart, or None to stay at `depth`. It has to gain
        `worth`, and more than its own range leaves open, so small swings change nothing."""
        best = self.best_depth(acceptance, streams)
        if best is None or best == depth:
            return None
        new = self.tokens_per_second(best, acceptance, streams)
        now = self.tokens_per_second(depth, acceptance, streams)
        if new is None or now is None:
            return None
        clear = new.low > now.expected and new.expected > now.high
        return best if clear and new.expected >= now.expected * (1 + worth) else None

    def acceptance_worth(self, depth: int, streams: int) -> float | None:
        """The acceptance, the same at each place, from which on that depth beats none; None where
        it never does or is not known."""
        base, at_one = self.step(0, streams), self.step(depth, streams)
        if base is None or at_one is None:
            return None
        needed = at_one.seconds / base.seconds
        if needed > 1 + depth:
            return None
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            if tokens_per_step((middle,), depth) >= needed:
                high = middle
            else:
                low = middle
        return high

    def to_json(self) -> list[dict[str, float]]:
        return [
            {
                "depth": depth,
                "streams": streams,
                "seconds_per_step": step.seconds,
                "low": step.low,
                "high": step.high,
            }
            for (depth, streams), step in sorted(self.steps.items())
        ]

    @staticmethod
    def from_json(value: Any) -> DepthCurve | None:
        """Entries that make no sense are left out; None where none is left."""
        found: dict[tuple[int, int], Step] = {}
        for entry in value[:_MOST_CELLS] if isinstance(value, list) else ():
            try:
                depth, streams = entry["depth"], entry["streams"]
                seconds = [entry[name] for name in ("seconds_per_step", "low", "high")]
            except (KeyError, TypeError, IndexError):
                continue
            whole = type(depth) is int and type(streams) is int
            if not whole or not (0 <= depth <= _MOST_DEPTH and 1 <= streams <= _MOST_STREAMS):
                continue
            if not all(type(s) in (int, float) and 0 < s < math.inf for s in seconds):
                continue
            middle, low, high = map(float, seconds)
            if low <= middle <= high:
                found[depth, streams] = Step(middle, low, high)
        return DepthCurve(found) if found else None


def streams_to_measure(parallel: int) -> tuple[int, ...]:
    """Numbers of streams for a curve of a service with `parallel` slots."""
    return (*(at for at in STREAMS if at < parallel), max(parallel, 1))
