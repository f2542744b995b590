"""Comparisons on a machine whose processors are not ours alone.

A virtual machine's neighbours take its processors' time in bursts of seconds to minutes. The kernel
counts what they took (`moestro.tune.disturbance`), so a comparison waits until nobody does, and
runs a round again in which somebody did.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from moestro.planning.settings import Settings
from moestro.tune.arena import Failure, Sample
from moestro.tune.disturbance import taken, usage
from moestro.tune.engine_arena import SETTLE_SECONDS, EngineArena

LIMIT = 0.04
"""Of the processors' time, taken by others, in a round that counts."""

PROBE_SECONDS = 1.0
QUIET_PROBES = 3
PATIENCE_SECONDS = 120.0
MOST_THROWN_AWAY = 2
"""Times as many rounds as were asked for."""

WARM_PARTS = 10
"""Room for the parts of a round that warms up, with those that are thrown away."""

Side = Callable[[int], Awaitable[Sample | Failure]]
"""Measures one of those that are compared on the part of the workload with this number."""


def probe(seconds: float = PROBE_SECONDS) -> float:
    """What others take while every processor is asked for: an idle machine is never disturbed."""
    spin = f"import time; end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    time.sleep(seconds / 4)  # they have started
    pids = [os.getpid(), *(one.pid for one in busy)]
    before = usage(pids)
    time.sleep(seconds / 2)
    found = taken(before, usage(pids))
    for one in busy:
        one.wait()
    return found


def wait(patience_seconds: float = PATIENCE_SECONDS) -> float:
    """Returns once a few probes in a row are quiet, or when patience is over; the seconds waited
    either way."""
    began = time.monotonic()
    quiet = 0
    while quiet < QUIET_PROBES and time.monotonic() - began < patience_seconds:
        if probe() <= LIMIT:
            quiet += 1
        else:
            quiet = 0
            time.sleep(2 * PROBE_SECONDS)
    return time.monotonic() - began


@dataclass(slots=True)
class Turns:
    """`rounds[i][j]` is what side j got in round i. `disturbed` of them count although others took
    too much: too many were thrown away. `failed` is the side that could not go on."""

    rounds: list[list[Sample]] = field(default_factory=list)
    thrown_away: int = 0
    disturbed: int = 0
    failed: int | None = None
    failure: Failure | None = None

    def of(self, side: int) -> list[Sample]:
        return [one[side] for one in self.rounds]


async def in_turns(sides: Sequence[Side], rounds: int, first_part: int) -> Turns:
    """Every side once a round, the order turned round each time. A round that was disturbed runs
    again on fresh requests once it is quiet, a few times as often as there are rounds at most."""
    found = Turns()
    while len(found.rounds) < rounds:
        number = len(found.rounds) + found.thrown_away
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        seen: dict[int, Sample] = {}
        for place in order:
            await asyncio.sleep(SETTLE_SECONDS)  # sides may be of arenas that don't know each other
            sample = await sides[place](first_part + number)
            if isinstance(sample, Failure):
                found.failed, found.failure = place, sample
                return found
            seen[place] = sample
        disturbed = max(one.disturbance for one in seen.values()) > LIMIT
        if disturbed and found.thrown_away < MOST_THROWN_AWAY * rounds:
            found.thrown_away += 1
            await asyncio.to_thread(wait)
        else:
            found.disturbed += disturbed
            found.rounds.append([seen[place] for place in range(len(sides))])
    return found


async def warmed_turns(sides: Sequence[Side], rounds: int, first_part: int) -> Turns:
    """`in_turns`, after a round that warms all of them up."""
    turns = await in_turns(sides, 1, first_part)
    if turns.failure is not None:
        return turns
    return await in_turns(sides, rounds, first_part + WARM_PARTS)


def side(arena: EngineArena, settings: Settings) -> Side:
    """These settings, on whole parts of the arena's workload."""
    return lambda part: arena.measure(settings, part=part, share=1.0)


class Stolen:
    """The part of the processors' time that other guests of the host took since it was made."""

    def __init__(self) -> None:
        self._began = usage(())

    def __call__(self) -> float:
        now = usage(())
        passed = now.passed - self._began.passed
        return (now.stolen - self._began.stolen) / passed if passed > 0 else 0.0
