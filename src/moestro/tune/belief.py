"""What is believed of every value that is not the incumbent's, so that time goes where it may pay.

A comparison tells of a value beside the incumbent of its time. For another incumbent it still
tells something: how far it may be off is assumed, more where the two are known to depend on each
other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from moestro.planning.settings import Settings
from moestro.tune.axis import Axis, Value
from moestro.tune.candidate import Candidate, Space
from moestro.tune.statistics import Ratio, expected_gain

ENGINE_FIELDS = ("engine", "repack")
MOVED = 0.015
"""By how much another setting commonly moves a ratio that does not depend on it, as a logarithm."""

MOVED_TOGETHER = 0.05
"""The same where one is known to depend on the other."""

RIVAL = 0.95
"""An engine that may be as near to the winner as this is looked at once more."""

LONG_SHOT = 0.5
"""How much of its promise a pair of changes keeps of which neither won alone."""

UNTRIED = 0.03
"""What a value beside the best one, never tried, may bring or cost."""


@dataclass(frozen=True, slots=True)
class Option:
    """`promise` is the expected gain of looking, as a logarithm. `direct`: it was compared with
    this very incumbent."""

    candidate: Candidate
    promise: float
    direct: bool


@dataclass(frozen=True, slots=True)
class _Belief:
    base: Settings
    log: float
    error: float


class Beliefs:
    """Learns from comparisons; answers what to look at next."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._axes = {axis.name: axis for axis in space.axes}
        self._of_values: dict[Value, _Belief] = {}
        self._of_engines: dict[tuple[object, ...], _Belief] = {}
        self._bounds: dict[Settings, float] = {}
        """What the logarithm of the ratio to the incumbent was at most, within two errors."""

        self._of_both: dict[tuple[tuple[object, ...], Value], _Belief] = {}

    def learn(self, candidate: Candidate, incumbent: Settings, ratio: Ratio) -> None:
        """`candidate` was compared with who is incumbent now. The change in which they differ is
        what is learned of."""
        belief = _Belief(incumbent, ratio.log, math.inf if ratio.pairs < 1 else ratio.error)
        other = candidate.settings
        self._bounds[other] = belief.log + 2 * belief.error
        moved = [axis for axis in self._space.axes if axis.place(other) != axis.place(incumbent)]
        if len(moved) > 1:  # room for something on a GPU is part of it, not a question of its own
            moved = [axis for axis in moved if axis.name != "cpu_expert_layers"]
        engines = _engine(other) != _engine(incumbent)
        if engines and not moved:
            self._of_engines[_engine(other)] = belief
        elif len(moved) == 1 and (place := moved[0].place(other)) is not None:
            value = moved[0].values[place]
            if engines:
                self._of_both[_engine(other), value] = belief
            else:
                self._of_values[value] = belief

    def options(self, incumbent: Settings) -> list[Option]:
        """What may be better than the incumbent; what promises most first."""
        found = [*self._values(incumbent), *self._engines(incumbent), *self._both(incumbent)]
        return sorted(found, key=lambda option: -option.promise)

    def rival(self, incumbent: Settings) -> Candidate | None:
        """The engine that came next, with what was found, if it is not far behind."""
        near = [
            (belief.log, candidate)
            for candidate, belief in self._other_engines(incumbent)
            if belief.log + 2 * belief.error > math.log(RIVAL)
        ]
        return max(near, key=lambda pair: pair[0])[1] if near else None

    def behind(self, engine: str, incumbent: Settings) -> float | None:
        """By what factor that engine is slower at least, as sure as two errors make it, however it
        was tried (another number of slots with it, say); None where it was not, or where it is the
        incumbent's."""
        found = [bound for settings, bound in self._bounds.items() if settings.engine == engine]
        return math.exp(-max(found)) if found and engine != incumbent.engine else None

    def _values(self, incumbent: Settings) -> Iterator[Option]:
        for axis in self._space.axes:
            if not axis.applies(incumbent):
                continue
            here = axis.place(incumbent)
            looked_at = any(value in self._of_values for value in axis.values)
            for place, value in enumerate(axis.values):
                if value.holds(incumbent):
                    continue
                candidate = value_candidate(self._space, axis, value, incumbent)
                belief = self._of_values.get(value)
                beside = axis.ordered and here is not None and abs(place - here) == 1
                if belief is not None:
                    yield self._option(candidate, belief, incumbent, axis)
                elif beside and looked_at:
                    yield Option(candidate, expected_gain(0.0, UNTRIED), False)

    def _option(
        self, candidate: Candidate, belief: _Belief, incumbent: Settings, axis: Axis
    ) -> Option:
        direct = belief.base == incumbent
        error = belief.error
        if not direct:
            moved = self._moved(belief.base, incumbent)
            error = math.hypot(error, MOVED_TOGETHER if moved & axis.after else MOVED)
        return Option(candidate, expected_gain(belief.log, error), direct)

    def _moved(self, before: Settings, now: Settings) -> set[str]:
        names = {name for name, axis in self._axes.items() if axis.place(before) != axis.place(now)}
        return names | ({"engine"} if _engine(before) != _engine(now) else set())

    def _engines(self, incumbent: Settings) -> Iterator[Option]:
        """Other engines with what was found since."""
        for candidate, belief in self._other_engines(incumbent):
            direct = belief.base == incumbent
            error = belief.error if direct else math.hypot(belief.error, MOVED_TOGETHER)
            yield Option(candidate, expected_gain(belief.log, error), direct)

    def _both(self, incumbent: Settings) -> Iterator[Option]:
        """Another engine together with another value of what depends on the engine: each alone may
        lose, and both win."""
        for candidate, engine in self._other_engines(incumbent):
            for axis in self._space.axes:
                if "engine" not in axis.after or not axis.applies(candidate.settings):
                    continue
                for value in axis.values:
                    alone = self._of_values.get(value)
                    if value.holds(incumbent) or alone is None:
                        continue
                    label = f"{candidate.label}, and {value.label}"
                    both = Candidate(label, value.at(candidate.settings), "engine")
                    known = self._of_both.get((_engine(candidate.settings), value))
                    if known is not None:
                        direct = known.base == incumbent
                        error = known.error if direct else math.hypot(known.error, MOVED_TOGETHER)
                        yield Option(both, expected_gain(known.log, error), direct)
                    else:
                        error = math.hypot(engine.error, alone.error, MOVED_TOGETHER)
                        promise = expected_gain(engine.log + alone.log, error)
                        yield Option(both, promise * LONG_SHOT, False)

    def _other_engines(self, incumbent: Settings) -> Iterator[tuple[Candidate, _Belief]]:
        seen = {_engine(incumbent)}
        for one in (Candidate("", self._space.start, "engine"), *self._space.opening):
            belief = self._of_engines.get(_engine(one.settings))
            if belief is None or _engine(one.settings) in seen:
                continue
            seen.add(_engine(one.settings))
            settings = replace(
                incumbent, **{name: getattr(one.settings, name) for name in ENGINE_FIELDS}
            )
            for axis in self._space.axes:  # what it cannot do is as in its first race
                if not axis.applies(settings):
                    names = {name for value in axis.values for name, _ in value.changes}
                    settings = replace(
                        settings, **{name: getattr(one.settings, name) for name in names}
                    )
            label = one.label or f"the first engine, {one.settings.engine}"
            yield Candidate(f"{label}, with what was found", settings, "engine"), belief


def value_candidate(space: Space, axis: Axis, value: Value, base: Settings) -> Candidate:
    """`base` with that value, and what makes room for it."""
    plain = value.at(base)
    settings = space.fitted(plain)
    label = value.label
    if settings.cpu_expert_layers != plain.cpu_expert_layers:
        label = f"{label}, experts of {settings.cpu_expert_layers} layers on the CPU"
    return Candidate(label, settings, axis.name)


def _engine(settings: Settings) -> tuple[object, ...]:
    return tuple(getattr(settings, name) for name in ENGINE_FIELDS)
