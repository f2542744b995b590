"""Measures a frontier: the same requests for each of some settings, for 1, 2, 4, … users."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Protocol

from moestro.errors import EngineError, GatewayError
from moestro.load.result import LoadResult
from moestro.load.scenario import Session, Turn
from moestro.load.summary import percentile
from moestro.planning.settings import Settings
from moestro.tune.disturbance import Usual
from moestro.tune.frontier import Frontier, FrontierPoint, LeftOut, Tolerance, marked
from moestro.tune.rivals import Rival
from moestro.tune.statistics import Noise, Pair
from moestro.tune.workload import Work, costs

FRONTIER_SHARE = 0.25
"""Of the budget of `tune`."""

ROUNDS = 3
"""Of each number of users: the fewest whose median leaves a burst out."""

FIRST_PART = 1 << 33
"""Apart from those of a search and of the curve of depths: no engine has seen these prompts."""

REACH = 2.0
"""Standard deviations; 19 times of 20."""

NO_TIME = "there was no time for it"


class Arena(Protocol):
    """What is needed of an `EngineArena`."""

    def start_seconds(self, settings: Settings) -> float: ...

    async def release(self, settings: Settings) -> None: ...

    async def run(self, settings: Settings, work: Work, *, part: int) -> tuple[LoadResult, float]:
        """What came of it, and the part of the processors' time that others took meanwhile."""
        ...


def streams_of_frontier(own: int) -> tuple[int, ...]:
    """Numbers of users in the order in which they are worth their time: the workload's own, a
    single one, twice its own, then the powers of 2 between. More than there are slots only queue,
    which is a point like others: the first token comes later."""
    between = (1 << power for power in range(1, own.bit_length()))
    return tuple(dict.fromkeys((own, 1, 2 * own, *(at for at in between if at < own))))


async def measure_frontier(
    arena: Arena,
    rivals: Sequence[Rival],
    work: Work,
    budget_seconds: float,
    *,
    noise: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Frontier:
    """Runs `rivals` (the most wanted first) beside each other for each number of users, in rounds:
    all of them the same requests, in an order that is turned round from one round to the next.

    Only rounds that ended count, and none is begun that would not end in time. A round in which
    others took more of the processors than usual runs again, a few times at most. Who fails is
    taken out as a whole, and it is said. `noise` is the relative scatter of one measurement, as far
    as it is known. `tell` hears of what goes on.
    """
    return await _Run(arena, rivals, work, budget_seconds, tell, clock).run(noise)


@dataclass(frozen=True, slots=True)
class _Figures:
    """Of one run."""

    tokens_per_second: float
    requests_per_second: float
    ttft: float
    time_per_token: float
    latency: float


class _Out(Exception):
    """A rival can't go on; the sentence that says why."""


class _Run:
    def __init__(
        self,
        arena: Arena,
        rivals: Sequence[Rival],
        work: Work,
        budget_seconds: float,
        tell: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.arena = arena
        self.rivals = list(rivals)
        self.wanted = work
        self.work = replace(work, sessions_each=1)
        self.tell = tell
        self.clock = clock
        self.deadline = clock() + budget_seconds
        self.streams = streams_of_frontier(work.streams)
        self.found: dict[tuple[Rival, int], list[_Figures]] = {}
        self.took: dict[tuple[Rival, int], float] = {}
        self.left_out: list[LeftOut] = []
        self.parts = FIRST_PART
        self.rounds = 0
        self.usual = Usual()
        self.again = ROUNDS
        """Disturbed rounds that may still be run once more."""

        self.one_at_a_time = False
        """Engines end as others start, so a visit has to be worth its start: it then takes all
        numbers of users."""

        # Their number hangs on the text, and that on the tokenizer: these tell the usual one.
        some = replace(work, streams=4, sessions_each=1).sessions(0, 1.0, 4.0)
        self.turns = fmean(len(session.turns) for session in some)

    async def run(self, noise: float) -> Frontier:
        self._fit()
        for _ in range(ROUNDS):
            waiting = list(self.streams)
            while waiting:
                group = waiting if self.one_at_a_time else waiting[:1]
                waiting = waiting[len(group) :]
                group = self._affordable(group)
                while await self._round(group) and self.again > 0:
                    self.again -= 1
                    group = self._affordable(group)
        for streams in sorted(self.streams):
            if self.rivals and not any(at == streams for _, at in self.found):
                self.left_out.append(LeftOut(_users(streams), NO_TIME))
        tolerance = self._tolerance(noise)
        return Frontier(marked(self._points(), tolerance), tolerance, tuple(self.left_out))

    # What fits

    def _fit(self) -> None:
        """Fewer rivals, and then shorter parts, until all rounds fit, as far as is known."""
        left = self.deadline - self.clock()
        while len(self.rivals) > 2 and self._starts() + self._all_seconds() > left:
            self.left_out.append(LeftOut(self.rivals.pop().label, NO_TIME))
        each = self._all_seconds()
        if each > 0:
            fitting = int((left - self._starts()) / (ROUNDS * each))
            each_user = min(max(fitting, 1), self.wanted.sessions_each)
            self.work = replace(self.work, sessions_each=each_user)

    def _starts(self) -> float:
        return sum(self.arena.start_seconds(rival.settings) for rival in self.rivals)

    def _all_seconds(self) -> float:
        return sum(self._seconds(rival, at) for rival in self.rivals for at in self.streams)

    def _affordable(self, group: Sequence[int]) -> list[int]:
        """Those of the numbers of users that one round has time for; the largest go first."""
        kept = list(group)
        while kept:
            needed = sum(self._seconds(rival, at) for rival in self.rivals for at in kept)
            if self.clock() + self._starts() + needed < self.deadline:
                break
            kept.remove(max(kept))
        return kept

    def _seconds(self, rival: Rival, streams: int) -> float:
        """What a run takes, rather too much than too little: with more users as much longer, with
        fewer no shorter. 0 before anything is known."""
        seen = {at: seconds for (one, at), seconds in self.took.items() if one == rival}
        if streams in seen:
            return seen[streams]
        if seen:
            near = min(seen, key=lambda at: abs(math.log(at / streams)))
            return seen[near] * max(streams / near, 1.0)
        if rival.request_seconds is not None:
            session = rival.request_seconds * self.turns
            longer = max(streams / self.work.streams, 1.0)
            return session * self.work.sessions_each * longer
        ran = {one for one, _ in self.took}
        known = [one for one in self.rivals if one in ran or one.request_seconds is not None]
        return max((self._seconds(one, streams) for one in known), default=0.0)

    # Rounds

    async def _round(self, group: Sequence[int]) -> bool:
        """Every rival with each number of users in `group`; nothing of it counts unless all ends
        in time. Whether it was disturbed: then it counts only where it can't be run again."""
        found: dict[tuple[Rival, int], _Figures] = {}
        parts = {at: self.parts + place for place, at in enumerate(group)}
        self.parts += len(group)
        most = 0.0
        for rival in list(self.rivals) if self.rounds % 2 == 0 else self.rivals[::-1]:
            for at in group:
                starting = self.arena.start_seconds(rival.settings)
                if starting > 0 and any(one == rival for one, _ in self.took):
                    self.one_at_a_time = True
                began = self.clock()
                if began + starting + self._seconds(rival, at) >= self.deadline:
                    return False
                self.tell(f"{rival.label}, {_users(at)}")
                try:
                    figures, disturbance = await self._figures(rival, at, parts[at])
                except _Out as out:
                    await self._out(rival, at, str(out))
                    break
                most = max(most, disturbance)
                self.took[rival, at] = max(self.clock() - began - starting, 0.0)
                found[rival, at] = figures
        disturbed = self.usual.judge(most)
        if disturbed and self.again > 0:
            return True
        for (rival, at), figures in found.items():
            if rival in self.rivals:
                self.found.setdefault((rival, at), []).append(figures)
        self.rounds += bool(group)
        return disturbed

    async def _figures(self, rival: Rival, streams: int, part: int) -> tuple[_Figures, float]:
        """What a run showed, and how disturbed it was."""
        work = replace(self.work, streams=streams)
        try:
            result, disturbance = await self.arena.run(rival.settings, work, part=part)
        except (EngineError, GatewayError) as error:
            raise _Out(error.sentence) from error
        failed = next((one.error for one in result.records if one.error is not None), None)
        if failed is not None:
            raise _Out(failed)
        figures = _figures_of(result, work)
        if figures is None:
            raise _Out("No answer had a second token to time.")
        return figures, disturbance

    async def _out(self, rival: Rival, streams: int, sentence: str) -> None:
        said = LeftOut(rival.label, f"with {_users(streams)}: {sentence}")
        self.left_out.append(said)
        self.tell(f"{said.label}, {said.sentence}")
        self.rivals.remove(rival)
        self.found = {key: runs for key, runs in self.found.items() if key[0] != rival}
        await self.arena.release(rival.settings)

    # What it comes to

    def _points(self) -> list[FrontierPoint]:
        return [
            _point(rival, streams, self.found[rival, streams])
            for streams in sorted(self.streams)
            for rival in self.rivals
            if (rival, streams) in self.found
        ]

    def _tolerance(self, noise: float) -> Tolerance:
        """Of the difference of two points, each a centre of as many rounds as the poorest has."""
        if not self.found:
            return Tolerance()
        rounds = min(len(runs) for runs in self.found.values())

        def reach(value: Callable[[_Figures], float]) -> float:
            pooled = Noise()
            first = self.rivals[0]
            for (rival, streams), runs in self.found.items():
                beside = self.found.get((first, streams), ())
                logs = [
                    math.log(value(one) / value(other))
                    for one, other in zip(runs, beside, strict=True)
                ]
                if rival != first:
                    pooled.learn((rival, streams), [Pair(log, 1.0) for log in logs])
            scatter = max(pooled.scale()[0], math.sqrt(2) * noise)
            return math.expm1(REACH * scatter / math.sqrt(rounds))

        return Tolerance(
            reach(lambda figures: figures.tokens_per_second),
            reach(lambda figures: figures.latency),
        )


def _figures_of(result: LoadResult, work: Work) -> _Figures | None:
    """As the objective counts: every answer as long as the workload's, so that settings whose
    answers end elsewhere are compared by speed."""
    length = work.scenario.output_tokens
    turns = max((record.turn for record in result.records), default=0) + 1
    sessions = max((record.session for record in result.records), default=0) + 1
    cost = costs(result, (Session((Turn((), length),) * turns),) * sessions)
    latencies = sorted(
        record.ttft + record.time_per_token * (length - 1)
        for record in result.records
        if record.ttft is not None and record.time_per_token is not None
    )
    if cost is None or not latencies:
        return None
    per_second = work.streams / cost.seconds
    return _Figures(
        tokens_per_second=per_second * length,
        requests_per_second=per_second,
        ttft=cost.ttft,
        time_per_token=cost.per_token,
        latency=percentile(latencies, 90),
    )


def _point(rival: Rival, streams: int, runs: Sequence[_Figures]) -> FrontierPoint:
    return FrontierPoint(
        label=rival.label,
        settings=rival.settings,
        streams=streams,
        tokens_per_second=median(run.tokens_per_second for run in runs),
        requests_per_second=median(run.requests_per_second for run in runs),
        ttft_seconds=median(run.ttft for run in runs),
        time_per_token_seconds=median(run.time_per_token for run in runs),
        latency_seconds=median(run.latency for run in runs),
        rounds=len(runs),
    )


def _users(streams: int) -> str:
    return "1 user" if streams == 1 else f"{streams} users at once"
