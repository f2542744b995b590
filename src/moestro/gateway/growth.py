"""Engines that grow are replaced before they have taken the machine's memory.

How much an engine may own is its *budget*: what the user said, or else what it owns now and what
the machine could still give, less a reserve. Prompt caches grow up to a bound that is known; only
what rises beyond it counts. The thresholds are below, and in docs/concepts/growth.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from moestro.errors import MoestroError
from moestro.gateway.life import Why
from moestro.gateway.trend import Floors, Slope
from moestro.units import MIB, format_bytes

if TYPE_CHECKING:
    from moestro.gateway.life import Life
    from moestro.gateway.service import Service

SAMPLE_SECONDS = 0.25
"""Nothing is read while no request comes."""

LEAST_REQUESTS = 50
"""Before so many nothing is believed."""

LEAST_GROWTH_BYTES = 32 * MIB
"""A floor that rose by less, beyond what caches may take, is left alone."""

SOON_REQUESTS = 500
SOON_SECONDS = 900.0
"""An engine that would cross its budget within so many requests, or so much time, is replaced at
the next quiet moment."""

QUIET_SECONDS = 2.0
"""A moment is quiet when so long no request was there."""

HASTE_SECONDS = 10.0
HASTE_STARTS = 2.0
"""An engine that would cross its budget within the time of so many starts, and these seconds, is
replaced at once."""

RATE_SECONDS = 60.0
"""How fast requests come is what came in the last minute, or since the engine was first seen: the
faster of the two."""

MOST_POINTS = 240
"""Floors that are kept to be shown."""

PAUSE_SECONDS = 300.0
"""After a replacement that failed."""

DEVICE = "device"
HOST = "host"


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one place: what the engine owns, and what it may own at most; in bytes."""

    own_bytes: int
    budget_bytes: int


Read = Callable[[int], Mapping[str, Memory]]
"""The engine's process → what it owns, by place (`host`, `device`), as far as something tells."""


class Urgency(StrEnum):
    NONE = "none"
    SOON = "soon"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be expected of one place. `requests_left` until the budget is crossed, None if
    memory does not rise."""

    place: str
    memory: Memory
    floor_bytes: int | None = None
    growth_bytes: int = 0
    slope: Slope | None = None
    requests_left: float | None = None
    urgency: Urgency = Urgency.NONE

    @property
    def sentence(self) -> str:
        """Why the engine is replaced."""
        rises = f" by {format_bytes(round(self.slope.value))} a request" if self.slope else ""
        left = f" and would cross {format_bytes(self.memory.budget_bytes)}"
        when = f" after {self.requests_left:.0f} more" if self.requests_left is not None else ""
        grew = f"it grew by {format_bytes(self.growth_bytes)}"
        return f"its {self.place} memory grows{rises} ({grew}){left}{when}"

    def to_json(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "own_bytes": self.memory.own_bytes,
            "budget_bytes": self.memory.budget_bytes,
            "floor_bytes": self.floor_bytes,
            "growth_bytes": self.growth_bytes,
            "bytes_per_request": None if self.slope is None else round(self.slope.value),
            "rises": self.slope is not None and self.slope.rises,
            "requests_left": None if self.requests_left is None else round(self.requests_left),
            "replace": str(self.urgency),
        }


def forecast(
    place: str,
    floors: Floors,
    memory: Memory,
    *,
    allowance_bytes: int,
    requests_per_second: float,
    start_seconds: float,
) -> Forecast:
    """`allowance_bytes` is what caches take by design. `start_seconds` is how long another engine
    takes until it is ready."""
    first, last = floors.first, floors.last
    if first is None or last is None:
        return Forecast(place, memory)
    growth = last.bytes - first.bytes
    if first.bytes > memory.budget_bytes:  # the next engine would need as much
        return Forecast(place, memory, last.bytes, growth)
    slopes = floors.slopes()
    shown = slopes[-1] if slopes else None
    rising = [slope for slope in slopes if slope.rises]
    # Caches end at their bound, unless the budget ends before.
    excused = allowance_bytes if first.bytes + allowance_bytes <= memory.budget_bytes else 0
    if growth < excused + LEAST_GROWTH_BYTES or last.request < LEAST_REQUESTS:
        return Forecast(place, memory, last.bytes, growth, shown)
    if memory.own_bytes > memory.budget_bytes:
        steepest = max(rising, key=lambda slope: slope.value, default=shown)
        return Forecast(place, memory, last.bytes, growth, steepest, 0, Urgency.NOW)
    if not rising:
        return Forecast(place, memory, last.bytes, growth, shown)
    steepest = max(rising, key=lambda slope: slope.value)
    left = max(memory.budget_bytes - memory.own_bytes, 0) / steepest.value
    urgency = Urgency.NONE
    if left <= max(SOON_REQUESTS, requests_per_second * SOON_SECONDS):
        urgency = Urgency.SOON
    if left <= requests_per_second * (HASTE_STARTS * start_seconds + HASTE_SECONDS):
        urgency = Urgency.NOW
    return Forecast(place, memory, last.bytes, growth, steepest, left, urgency)


@dataclass(slots=True)
class _Watched:
    """One engine, since it was first seen."""

    life: Life
    begun: float
    answered: int = 0
    floors: dict[str, Floors] = field(default_factory=dict)
    lately: deque[tuple[float, int]] = field(default_factory=deque)
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    found: dict[str, Forecast] = field(default_factory=dict)

    def rate(self, now: float) -> float:
        """Requests per second."""
        while self.lately and now - self.lately[0][0] > RATE_SECONDS:
            self.lately.popleft()
        overall = self.answered / max(now - self.begun, 1.0)
        if not self.lately:
            return overall
        at, answered = self.lately[0]
        return max(overall, (self.answered - answered) / max(now - at, 1.0))


class GrowthWatch:
    """Watches the engine that answers, for as long as its service runs. Where `slow` says that
    `read` would be, it is called in a thread: waking one costs more than a short look.
    `allowance_bytes` says what an engine's caches may take on the host."""

    def __init__(
        self,
        read: Read,
        allowance_bytes: Callable[[], int] = lambda: 0,
        slow: Callable[[int], bool] = lambda _pid: False,
    ) -> None:
        self.replacements = 0
        self._read = read
        self._allowance_bytes = allowance_bytes
        self._slow = slow
        self._watched: _Watched | None = None
        self._quiet_since: float | None = None
        self._not_before = 0.0

    @property
    def forecasts(self) -> list[Forecast]:
        """Of the engine that answers; empty until something is known."""
        return list(self._watched.found.values()) if self._watched is not None else []

    def to_json(self) -> dict[str, Any]:
        """What is known of the engine that answers, for people. `points` are floors of the host's
        memory: when, in seconds since the epoch, and bytes."""
        told = [one.to_json() for one in self.forecasts]
        return {
            "sentence": self._sentence(),
            "points": list(self._watched.points) if self._watched is not None else [],
            "places": told,
            "replacements": self.replacements,
        }

    def _sentence(self) -> str:
        rising = [one for one in self.forecasts if one.slope is not None and one.slope.rises]
        if not self.forecasts:
            return "Nothing is known yet: no request has come."
        worst = max(self.forecasts, key=lambda one: _RANK[one.urgency])
        if worst.urgency is not Urgency.NONE:
            when = "now" if worst.urgency is Urgency.NOW else "at the next quiet moment"
            return f"The engine is replaced {when}: {worst.sentence}."
        if all(one.slope is None for one in self.forecasts):
            return f"Too few requests yet to tell: {LEAST_REQUESTS} are needed."
        if not rising:
            return "Memory does not grow with requests."
        grows = " and ".join(
            f"{one.place} memory by {format_bytes(round(one.slope.value))} a request"
            for one in rising
            if one.slope is not None
        )
        return f"Growing: {grows}; the budget is not in reach, or caches explain it."

    async def run(self, service: Service) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            life = service.life
            if life is None or life.engine.pid is None or not life.ready:
                self._quiet_since = None
                continue
            await self._look(service, life)
            worst = max(self.forecasts, key=lambda one: _RANK[one.urgency], default=None)
            if worst is not None and self._is_time(service, worst.urgency):
                await self._replace(service, life, worst)

    async def _look(self, service: Service, life: Life) -> None:
        now = time.monotonic()
        if self._watched is None or self._watched.life is not life:
            self._watched = _Watched(life, now)
        watched, pid, answered = self._watched, life.engine.pid, life.answered
        assert pid is not None
        if watched.found and not life.running and answered == watched.answered:
            return
        watched.answered = answered
        if not watched.lately or now - watched.lately[-1][0] >= 1.0:
            watched.lately.append((now, answered))
        rate = watched.rate(now)
        slow = self._slow(pid)
        found = await asyncio.to_thread(self._read, pid) if slow else self._read(pid)
        for place, memory in found.items():
            floors = watched.floors.setdefault(place, Floors())
            ended = floors.add(answered, memory.own_bytes)
            if ended and place == HOST and floors.last is not None:
                watched.points.append((time.time(), floors.last.bytes))
            if not ended and place in watched.found and memory.own_bytes <= memory.budget_bytes:
                continue
            if memory.own_bytes > memory.budget_bytes and place not in watched.found:
                service.tell(life.number, f"{_over(place, memory)}, so its growth is not watched")
            watched.found[place] = forecast(
                place,
                floors,
                memory,
                allowance_bytes=self._allowance_bytes() if place == HOST else 0,
                requests_per_second=rate,
                start_seconds=life.engine.started_seconds or 0.0,
            )

    def _is_time(self, service: Service, urgency: Urgency) -> bool:
        now = time.monotonic()
        if service.running or service.queue.waiting:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        if urgency is Urgency.NONE or now < self._not_before:
            return False
        quiet = self._quiet_since is not None and now - self._quiet_since >= QUIET_SECONDS
        return quiet or urgency is Urgency.NOW

    async def _replace(self, service: Service, life: Life, worst: Forecast) -> None:
        try:
            await service.replace(because=worst.sentence, kind=Why.GREW, of=life)
            self.replacements += 1
        except MoestroError:  # the service has told why
            self._not_before = time.monotonic() + PAUSE_SECONDS


def _over(place: str, memory: Memory) -> str:
    own, budget = format_bytes(memory.own_bytes), format_bytes(memory.budget_bytes)
    return f"it owns {own} of {place} memory from the start, more than the {budget} that it may"


_RANK = {Urgency.NONE: 0, Urgency.SOON: 1, Urgency.NOW: 2}
