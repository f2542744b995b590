"""The arena of real engines: each candidate runs as a server of its own, under real requests."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from moestro.engine import Engine, EngineExit, EngineRequest, EngineState
from moestro.engine.drafts import LOG_LINES, acceptance_by_position
from moestro.engine.start import make_engine
from moestro.errors import EngineError, GatewayError, MoestroError
from moestro.load import Load, LoadResult, Target, generate
from moestro.load.calibrate import calibrate
from moestro.load.generate import DEFAULT_CHARACTERS_PER_TOKEN
from moestro.load.scenario import Session
from moestro.load.scenarios import SCENARIOS
from moestro.load.summary import summarise
from moestro.planning.settings import Settings
from moestro.tune.arena import Failure, Outcome, Sample
from moestro.tune.disturbance import taken, usage
from moestro.tune.workload import LEAST_LENGTH, Costs, Work, costs

START_SECONDS = 900.0
"""A large model from a slow disk."""

REQUEST_SECONDS = 1800.0
LEAST_PATIENCE_SECONDS = 20.0
HOPELESS = 8

PILOT = 1 << 31
"""A part that no search counts up to."""

DYING_SECONDS = 2.0
"""A connection breaks before the process has ended, and why it ended is known after that."""

WARM_UP_SEED = 0x3A11
WARM_UP_SHARE = 0.1
MOST_ALIVE = 4
"""Engines at once: they idle while another is measured, but each has a process and a context."""

SETTLE_SECONDS = 0.2
"""From one engine to the next: threads of the first one spin on for a moment (`child.SPIN`)."""


@dataclass(slots=True)
class _Live:
    engine: Engine
    target: Target
    last_used: float


class EngineArena:
    """Implements `Arena`. Use as an async context manager: it ends its engines.

    Several engines stay up at once, so that settings can be compared turn by turn, as long as all
    of them together take no more than `memory_bytes` by `needs_bytes`; the one that was used last
    the longest ago ends first. A single one may always run.
    """

    def __init__(
        self,
        request: EngineRequest,
        work: Work,
        *,
        needs_bytes: Callable[[Settings], int],
        memory_bytes: int,
        make: Callable[[EngineRequest], Engine] = make_engine,
        most_alive: int = MOST_ALIVE,
    ) -> None:
        self._request = request
        self.work = work
        self._needs_bytes = needs_bytes
        self._memory_bytes = memory_bytes
        self._make = make
        self._most_alive = most_alive
        self._live: dict[Settings, _Live] = {}
        self._start_seconds: dict[Settings, float] = {}
        self._characters_per_token: float | None = None
        self._asked: _Live | None = None
        self._usual_seconds: float | None = None
        self._most_seconds = REQUEST_SECONDS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(live.engine.stop() for live in self._live.values()))
        self._live.clear()

    @property
    def _characters(self) -> float:
        """Per token, of the workload's own text once an engine was asked."""
        return self._characters_per_token or DEFAULT_CHARACTERS_PER_TOKEN

    def start_seconds(self, settings: Settings) -> float:
        """Of these settings if they were started before, else of others with the same engine."""
        if self._ready(settings) is not None:
            return 0.0
        if settings in self._start_seconds:
            return self._start_seconds[settings]
        alike = [s for one, s in self._start_seconds.items() if one.engine == settings.engine]
        every = alike or list(self._start_seconds.values())
        return max(every, default=0.0)

    async def release(self, settings: Settings) -> None:
        live = self._live.pop(settings, None)
        if live is not None:
            await live.engine.stop()

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        began = time.monotonic()
        try:
            live = await self._up(settings)
        except EngineError as error:
            return Failure(_refusal(error.sentence), error.sentence, time.monotonic() - began)
        starting = time.monotonic() - began
        sessions = self.work.sessions(part, share, self._characters)
        length = self.work.length(share)
        result: LoadResult | GatewayError
        await self._settle(live)
        before = usage(self._pids(live))
        try:
            result = await self._run(live, self.work, part, sessions, length=length)
        except GatewayError as error:
            result = error
        disturbance = taken(before, usage(self._pids(live)))
        live.last_used = time.monotonic()
        failure = await self._trouble(settings, live, result)
        spent = time.monotonic() - began
        if failure is not None:
            return replace(failure, spent_seconds=spent)
        assert isinstance(result, LoadResult)
        value = self.work.value(result, sessions, length)
        if value is None:
            return Failure("wrong-output", "No answer had a second token to time.", spent)
        longest = max(record.latency for record in result.records) / length
        self._usual_seconds = min(longest, self._usual_seconds or longest)
        figures = self._figures(live, result, costs(result, sessions, length))
        return Sample(value, spent, figures, self.work.real_share(share), disturbance, starting)

    @staticmethod
    def _pids(live: _Live) -> tuple[int, ...]:
        """The engine that is measured, and this process, which asks."""
        return (os.getpid(), *((live.engine.pid,) if live.engine.pid is not None else ()))

    async def fit(self, settings: Settings, budget_seconds: float) -> float | None:
        """Makes the parts of the workload as long as the budget bears, by a short session of every
        user, and says which share of a request's time goes into reading its prompt. None where
        that fails: `measure` will say why.

        Raises:
            MoestroError: the budget was over before the first requests were.
        """
        began = time.monotonic()
        self.work = replace(self.work, sessions_each=1)
        self._most_seconds = max(budget_seconds, LEAST_PATIENCE_SECONDS)
        found = await self.measure(settings, part=PILOT, share=LEAST_LENGTH)
        self._most_seconds = REQUEST_SECONDS
        if isinstance(found, Failure):
            if found.outcome == "timed-out":
                raise MoestroError(
                    f"The budget of {budget_seconds:.0f} s was over before the first request of "
                    f"{self.work.scenario.name} was.",
                    hint="Give it much more, or a lighter workload.",
                    code="tune-budget-too-short",
                )
            return None
        share = found.share or 1.0
        took = time.monotonic() - began - found.starting_seconds
        self.work = self.work.sized(took / share, budget_seconds)
        reading = found.figures["ttft_seconds"]
        tokens = share * self.work.scenario.output_tokens
        return reading / (reading + found.figures["time_per_token_seconds"] * tokens)

    async def run(
        self,
        settings: Settings,
        work: Work,
        *,
        part: int,
        output_share: float = 1.0,
        ignore_eos: bool = False,
    ) -> tuple[LoadResult, float]:
        """Another workload with these settings: for curves over streams. And the part of the
        processors' time that others took from it.

        Raises:
            EngineError: they do not run, or no longer.
            GatewayError: the engine does not answer as it should.
        """
        live = await self._up(settings)
        sessions = work.sessions(part, 1.0, self._characters)
        result: LoadResult | GatewayError
        await self._settle(live)
        before = usage(self._pids(live))
        try:
            result = await self._run(
                live, work, part, sessions, output_share=output_share, ignore_eos=ignore_eos
            )
        except GatewayError as error:
            result = error
        disturbance = taken(before, usage(self._pids(live)))
        live.last_used = time.monotonic()
        ended = await self._ended(settings, live, result)
        if ended is not None:
            raise EngineError(ended.sentence)
        if isinstance(result, GatewayError):
            raise result
        return result, disturbance

    async def _run(
        self,
        live: _Live,
        work: Work,
        part: int,
        sessions: tuple[Session, ...],
        *,
        length: float = 1.0,
        output_share: float = 1.0,
        ignore_eos: bool = False,
    ) -> LoadResult:
        """`length` shortens prompts and answers, `output_share` answers only."""
        load = Load(
            work.scenario,
            seed=part,
            requests=sum(len(session.turns) for session in sessions),
            concurrency=work.streams,
            options={"cache_prompt": True},
            request_seconds=self._patience(length),
            output_share=output_share * length,
            ignore_eos=ignore_eos,
        )
        return await generate(live.target, load, characters_per_token=self._characters * length)

    async def _settle(self, live: _Live) -> None:
        """Returns when the engine that was asked last is quiet."""
        last, self._asked = self._asked, live
        if last is not None and last is not live:
            left = last.last_used + SETTLE_SECONDS - time.monotonic()
            await asyncio.sleep(max(left, 0.0))

    def _patience(self, length: float) -> float:
        """Seconds. A request that takes many times as long as others do is not worth its end."""
        if self._usual_seconds is None:
            return self._most_seconds
        usual = self._usual_seconds * length
        return min(max(LEAST_PATIENCE_SECONDS, HOPELESS * usual), REQUEST_SECONDS)

    def _ready(self, settings: Settings) -> _Live | None:
        """What runs with them; not what ended while it waited."""
        live = self._live.get(settings)
        return live if live is not None and live.engine.state is EngineState.READY else None

    async def _up(self, settings: Settings) -> _Live:
        ready = self._ready(settings)
        if ready is not None:
            return ready
        self._live.pop(settings, None)  # it ended while it waited: it starts anew
        await self._make_room(settings)
        began = time.monotonic()
        talks = bool(settings.drafts)  # its log then says which drafts were accepted
        engine = self._make(replace(self._request, settings=settings, verbose=talks))
        try:
            await engine.start(START_SECONDS)
            target = Target(engine.address, engine.api_key, self._request.name)
            await self._warm_up(target)
        except GatewayError as error:
            ended = await _end_of(engine, DYING_SECONDS)
            await engine.stop()
            raise EngineError(ended.sentence if ended else error.sentence) from error
        except BaseException:
            await engine.stop()
            raise
        self._start_seconds[settings] = time.monotonic() - began
        live = _Live(engine, target, time.monotonic())
        self._live[settings] = live
        return live

    async def _warm_up(self, target: Target) -> None:
        """Pages of the file come to memory, and text is fitted to the tokenizer."""
        if self._characters_per_token is None:
            self._characters_per_token = await calibrate(target, self.work.scenario)
        load = Load(SCENARIOS["chat"], seed=WARM_UP_SEED, requests=1, output_share=WARM_UP_SHARE)
        await generate(target, load, characters_per_token=self._characters)

    async def _make_room(self, settings: Settings) -> None:
        wanted = self._needs_bytes(settings)
        while self._live:
            taken = sum(map(self._needs_bytes, self._live)) + wanted
            if len(self._live) < self._most_alive and taken <= self._memory_bytes:
                return
            oldest = min(self._live, key=lambda one: self._live[one].last_used)
            await self.release(oldest)

    async def _trouble(
        self, settings: Settings, live: _Live, result: LoadResult | GatewayError
    ) -> Failure | None:
        """What is wrong with the try, if anything is."""
        ended = await self._ended(settings, live, result)
        if ended is not None:
            short = ended.signal == "SIGKILL" or "memory" in ended.sentence.lower()
            return Failure("out-of-memory" if short else "crashed", ended.sentence)
        if isinstance(result, GatewayError):
            return Failure("crashed", result.sentence)
        failed = [record for record in result.records if record.error is not None]
        if failed:
            late = failed[0].error_code == "timed-out"
            return Failure("timed-out" if late else "refused", failed[0].error or "")
        taken = _resident_bytes(live.engine.pid)
        if taken is not None and taken > self._memory_bytes:
            await self.release(settings)
            return Failure(
                "over-plan",
                f"The engine took {taken:,} bytes, and the plan allows {self._memory_bytes:,}.",
            )
        return None

    async def _ended(
        self, settings: Settings, live: _Live, result: LoadResult | GatewayError
    ) -> EngineExit | None:
        """How the engine ended, if it did: then it is forgotten."""
        broke = isinstance(result, GatewayError) or any(one.error for one in result.records)
        ended = await _end_of(live.engine, DYING_SECONDS if broke else 0.0)
        if ended is not None:
            self._live.pop(settings, None)
        return ended

    def _figures(self, live: _Live, result: LoadResult, cost: Costs | None) -> dict[str, float]:
        summary = summarise(result)
        found: dict[str, float | None] = {
            "ttft_seconds": cost.ttft if cost else None,
            "time_per_token_seconds": cost.per_token if cost else None,
            "ttft_p90_seconds": summary.ttft.p90 if summary.ttft else None,
            "time_per_token_p90_seconds": summary.time_per_token.p90
            if summary.time_per_token
            else None,
            "latency_p90_seconds": summary.latency.p90 if summary.latency else None,
            "output_tokens_per_second": summary.output_tokens_per_second,
            "prompt_tokens_per_second": summary.prompt_tokens_per_second,
            "cached_ratio": summary.cached_ratio,
            "memory_bytes": _resident_bytes(live.engine.pid),
        }
        if summary.drafted:
            found["acceptance"] = (summary.accepted or 0) / summary.drafted
            log = live.engine.log_tail(LOG_LINES)
            rates = acceptance_by_position(log, len(result.records))
            for place, rate in enumerate(rates, 1):
                found[f"acceptance_{place}"] = rate
        return {name: float(value) for name, value in found.items() if value is not None}


async def _end_of(engine: Engine, patience_seconds: float) -> EngineExit | None:
    """How it ended; None if it still lives after so long."""
    if engine.state is EngineState.READY:
        with suppress(TimeoutError):
            return await asyncio.wait_for(engine.wait(), patience_seconds)
        return None
    return await engine.wait()


def _refusal(sentence: str) -> Outcome:
    return "out-of-memory" if "memory" in sentence.lower() else "refused"


def _resident_bytes(pid: int | None) -> int | None:
    """In RAM now, the file's mapped pages included."""
    if pid is None:
        return None
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
