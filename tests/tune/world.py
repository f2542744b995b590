"""A machine that exists on paper: known speeds, and noise like that of a shared machine.

A request takes reading time and writing time; each setting changes one of them or both, some only
together (the best ubatch depends on the engine, the best number of threads on drafting). On top
come noise, drift, and bursts of a neighbour. Time passes on a clock of its own.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from moestro.planning.settings import Settings
from moestro.tune.arena import Failure, Sample
from moestro.tune.axis import Axis, Value
from moestro.tune.candidate import Candidate, Space

START = Settings(context=4096, parallel=1, threads=2)
ENGINES = ("embedded", "other")
UBATCHES = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Effects:
    """Logarithms of speed. `reading` is the part of the start's time that reading takes."""

    reading: float
    engine: Mapping[tuple[str, bool], tuple[float, float]]
    best_ubatch: Mapping[str, float]
    ubatch_width: float
    fewer_threads: float
    fewer_threads_drafting: float
    fewer_threads_reading: float
    no_flash: tuple[float, float]
    step: Mapping[str, float]
    draft: float
    acceptance: float
    ngram: float
    slots: float

    @staticmethod
    def drawn(random_: random.Random) -> Effects:
        """Of the sizes that machines show."""
        normal = random_.gauss
        return Effects(
            reading=random_.uniform(0.15, 0.85),
            engine={
                (name, repack): (normal(0.0, 0.25), normal(0.0, 0.15))
                for name in ENGINES
                for repack in (True, False)
            },
            best_ubatch={name: random_.uniform(7.5, 11.0) for name in ENGINES},
            ubatch_width=random_.uniform(3.0, 8.0),
            fewer_threads=normal(-0.3, 0.2),
            fewer_threads_drafting=normal(0.0, 0.1),
            fewer_threads_reading=normal(-0.5, 0.15),
            no_flash=(normal(-0.03, 0.05), normal(-0.03, 0.05)),
            step={name: random_.uniform(0.2, 0.8) for name in ENGINES},
            draft=random_.uniform(0.03, 0.2),
            acceptance=random_.uniform(0.2, 0.95),
            ngram=normal(0.0, 0.05),
            slots=normal(-0.02, 0.02),
        )

    def seconds(self, settings: Settings) -> float:
        """Of one request, the start's reading and writing taking about one second together."""
        engine = settings.engine
        reading, writing = self.engine[engine, settings.repack]
        off = (math.log2(settings.ubatch) - self.best_ubatch[engine]) / self.ubatch_width
        reading -= off * off
        if (settings.threads_batch or settings.threads) < 2:
            reading += self.fewer_threads_reading
        if settings.threads < 2:
            writing += self.fewer_threads
            writing += self.fewer_threads_drafting if settings.mtp_depth else 0.0
        if settings.flash_attention == "off":
            reading += self.no_flash[0]
            writing += self.no_flash[1]
        depth, a = settings.mtp_depth, self.acceptance
        tokens = sum(a**place for place in range(depth + 1))
        writing += math.log(tokens / (1 + depth * (self.step[engine] + self.draft)))
        if settings.ngram != "off":
            writing += self.ngram
        if settings.parallel > 1:
            reading += self.slots
            writing += self.slots
        return self.reading * math.exp(-reading) + (1 - self.reading) * math.exp(-writing)


@dataclass
class World:
    """An arena. `noise` is the scatter of one whole sample; `short_noise` how it grows on shorter
    ones (share to the power of minus that). `spikes` is how often a neighbour makes a sample three
    times as long, `drift` the scatter of the machine's speed over ten minutes. `fails` settings
    end in the failure named. `room` engines are up at once."""

    effects: Effects
    seed: int
    noise: float = 0.03
    short_noise: float = 0.25
    spikes: float = 0.0
    drift: float = 0.05
    start_seconds_: float = 4.0
    part_seconds: float = 10.0
    room: int = 4
    fails: Mapping[str, Failure] = field(default_factory=dict)
    now: float = 0.0
    calls: list[tuple[Settings, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._alive: OrderedDict[Settings, None] = OrderedDict()
        self._parts = random.Random(self.seed + 1).random()
        self._drift = 0.0

    def clock(self) -> float:
        return self.now

    def truth(self, settings: Settings) -> float:
        return 1 / self.effects.seconds(settings)

    def start_seconds(self, settings: Settings) -> float:
        return 0.0 if settings in self._alive or not self.calls else self.start_seconds_

    async def release(self, settings: Settings) -> None:
        self._alive.pop(settings, None)

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        began = self.now
        if settings not in self._alive:
            self.now += self.start_seconds_
        starting = self.now - began
        self.calls.append((settings, part, share))
        failure = self._failure(settings)
        if failure is not None:
            self._alive.pop(settings, None)
            return failure
        self._alive[settings] = None
        self._alive.move_to_end(settings)
        while len(self._alive) > self.room:
            self._alive.popitem(last=False)
        length = random.Random(f"{self.seed} {part}").gauss(0.0, 0.1)  # texts differ in length
        scatter = self.noise * share**-self.short_noise
        log = length + self._drift + self._random.gauss(0.0, scatter)
        if self._random.random() < self.spikes:
            log += math.log(3)
        request = self.effects.seconds(settings) * math.exp(log)
        took = request * self.part_seconds * share
        self.now += took
        away = math.exp(-took / 300)
        step = math.sqrt(1 - away**2) * self.drift
        self._drift = self._drift * away + self._random.gauss(0.0, step)
        figures = {"latency_seconds": request}
        return Sample(1 / request, self.now - began, figures, starting_seconds=starting)

    def _failure(self, settings: Settings) -> Failure | None:
        for name, failure in self.fails.items():
            setting, _, value = name.partition("=")
            if str(getattr(settings, setting)) == value:
                return failure
        return None


def axes() -> tuple[Axis, ...]:
    return (
        Axis(
            "ubatch",
            tuple(Value.of(f"ubatch {size}", ubatch=size) for size in UBATCHES),
            ordered=True,
            after=frozenset({"engine", "threads_batch"}),
            prompt_gain=0.2,
        ),
        Axis(
            "mtp",
            tuple(Value.of(f"MTP depth {depth}", mtp_depth=depth) for depth in range(5)),
            ordered=True,
            first=("MTP depth 1", "MTP depth 3"),
            after=frozenset({"engine", "threads"}),
            decode_gain=0.3,
        ),
        Axis(
            "threads",
            tuple(Value.of(f"{count} threads", threads=count) for count in (1, 2)),
            ordered=True,
            after=frozenset({"engine", "mtp"}),
            decode_gain=0.12,
        ),
        Axis(
            "threads_batch",
            tuple(Value.of(f"{count} to read", threads_batch=count) for count in (1, 2)),
            ordered=True,
            after=frozenset({"engine"}),
            prompt_gain=0.08,
        ),
        Axis(
            "flash_attention",
            (
                Value.of("flash attention", flash_attention="auto"),
                Value.of("no flash attention", flash_attention="off"),
            ),
            after=frozenset({"engine"}),
            prompt_gain=0.05,
            decode_gain=0.04,
        ),
        Axis(
            "ngram",
            (Value.of("no n-grams", ngram="off"), Value.of("n-grams", ngram="simple")),
            decode_gain=0.08,
        ),
    )


def opening(start: Settings = START) -> tuple[Candidate, ...]:
    engines = [
        replace(start, engine=name, repack=repack) for name in ENGINES for repack in (True, False)
    ]
    defaults = replace(start, ubatch=512, parallel=4)
    return tuple(
        Candidate(f"{one.engine} {'with' if one.repack else 'without'} repacking", one, "engine")
        for one in engines
        if one != start
    ) + ((Candidate("defaults", defaults, "engine"),) if defaults != start else ())


def world_space(effects: Effects, *names: str, start: Settings = START) -> Space:
    """All axes, or those named."""
    found = tuple(axis for axis in axes() if not names or axis.name in names)
    return Space(start, opening(start), found, prompt_share=effects.reading)


def everything(space: Space) -> Iterator[Settings]:
    """What an exhaustive sweep would run: each opening with each combination of values."""
    bases = [space.start, *(one.settings for one in space.opening)]
    for base in bases:
        for values in itertools.product(*(axis.values for axis in space.axes)):
            settings = base
            for value in values:
                settings = value.at(settings)
            yield settings


def sweep_seconds(world: World, space: Space, samples: int) -> float:
    """What that would take: a start and `samples` whole parts of each."""
    return sum(
        world.start_seconds_ + samples * world.part_seconds * world.effects.seconds(settings)
        for settings in everything(space)
    )
