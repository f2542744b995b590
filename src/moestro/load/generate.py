"""Puts a load on an endpoint: sends the requests of a scenario and records what becomes of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal

from moestro.client.endpoint import AnswerStream, EndpointClient
from moestro.errors import GatewayError, UsageError
from moestro.load.counts import counts_of
from moestro.load.descriptors import most_connections
from moestro.load.energy import SAMPLE_SECONDS, Energy, EnergyMeter
from moestro.load.record import RequestRecord
from moestro.load.result import LoadResult
from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.target import Target

DEFAULT_CHARACTERS_PER_TOKEN = 4.0
"""Of English with a vocabulary of a hundred thousand tokens."""

MAX_EVENT_BYTES = 4 * 1024 * 1024

_PIECES_PER_TOKEN = 4
_PIECES_MORE = 1000
_UNREACHABLE = "endpoint-unreachable"
_MOST_UNREACHABLE = 3
_WARMUP_SEED = 0x5EED_0000_0000
_MADE_BEFORE = 256
"""Sessions whose text is made before the clock starts, so that making it delays nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """Which requests, and how fast.

    Closed loop: `concurrency` users (the scenario's own number where None), each of whom takes the
    next session when the last one is over. Open loop: `rate` requests per second, sent when due
    whatever became of those before; of a session the first turn is due by the clock, the others
    when the turn before is answered, and the next session so much later that the mean rate is
    kept.

    It ends after `requests` or after `seconds`, whichever comes first; one of the two must be
    given. What is under way then is still answered. With `requests` the same ones are sent every
    time, whoever is faster.

    `output_share` scales every answer's length. `ignore_eos` asks for answers of full length, which
    llama.cpp and vLLM understand. `options` go into every body and win over the scenario's.
    `warmup_requests` are sent first, one after the other, of another seed, and are not recorded.
    """

    scenario: Scenario
    seed: int = 0
    requests: int | None = None
    seconds: float | None = None
    concurrency: int | None = None
    rate: float | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"
    ignore_eos: bool = False
    output_share: float = 1.0
    temperature: float | None = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    warmup_requests: int = 0
    request_seconds: float = 600.0
    keep_text: bool = False

    def __post_init__(self) -> None:
        if self.requests is None and self.seconds is None:
            raise UsageError("A load needs an end: a number of requests or a duration.")
        if self.rate is not None and self.concurrency is not None:
            raise UsageError("A load has either a rate or a concurrency, not both.")
        bounds = (self.requests, self.seconds, self.concurrency, self.rate, self.request_seconds)
        if any(value is not None and value <= 0 for value in (*bounds, self.output_share)):
            raise UsageError("A load's numbers must be greater than zero.")

    @property
    def users(self) -> int | None:
        """Of a closed loop; None for an open one."""
        if self.rate is not None:
            return None
        return self.concurrency or self.scenario.concurrency


async def generate(
    target: Target,
    load: Load,
    *,
    characters_per_token: float = DEFAULT_CHARACTERS_PER_TOKEN,
    on_record: Callable[[RequestRecord], None] | None = None,
    stop: asyncio.Event | None = None,
    client: EndpointClient | None = None,
) -> LoadResult:
    """Runs the load to its end and returns what became of it.

    Requests go to `/v1/chat/completions` as streams. One that fails is a record with an `error`.
    `on_record` hears of each one as it ends. When `stop` is set nothing more is sent, what is under
    way is cut off, and the result holds what was learned. `client` is one that is open already; it
    must be the target's.

    Raises:
        GatewayError: nothing answers at the target.
    """
    async with _client_of(target, client) as reached:
        return await _Run(reached, target, load, characters_per_token, on_record, stop).run()


def client_of(target: Target) -> EndpointClient:
    """A client that is fit for loads; to be entered, and then given to `generate`."""
    return EndpointClient(target.url, api_key=target.api_key, max_event_bytes=MAX_EVENT_BYTES)


@asynccontextmanager
async def _client_of(target: Target, given: EndpointClient | None) -> AsyncIterator[EndpointClient]:
    if given is not None:
        yield given
        return
    async with client_of(target) as made:
        yield made


class _Run:
    """One load under way. Times in here are of `time.monotonic`, in records since `_start`."""

    def __init__(
        self,
        client: EndpointClient,
        target: Target,
        load: Load,
        characters_per_token: float,
        on_record: Callable[[RequestRecord], None] | None,
        stop: asyncio.Event | None,
    ) -> None:
        self._client = client
        self._target = target
        self._load = load
        self._characters_per_token = characters_per_token
        self._on_record = on_record
        self._stop = stop or asyncio.Event()
        self._halt = asyncio.Event()
        self._records: list[RequestRecord] = []
        self._answered = False
        self._unreachable_in_a_row = 0
        self._missing: GatewayError | None = None
        self._start = 0.0
        self._connections = asyncio.Semaphore(most_connections())

    async def run(self) -> LoadResult:
        await self._until_halted(self._warm_up())
        sessions = self._sessions()
        made = list(islice(sessions, _MADE_BEFORE))
        meter = await asyncio.to_thread(EnergyMeter) if self._target.is_here else None
        self._start = time.monotonic()
        if not self._halted:
            await self._until_halted(self._drive(enumerate(chain(made, sessions))), meter)
        seconds = max((record.ended for record in self._records), default=0.0)
        energy: Energy | None = await asyncio.to_thread(meter.stop) if meter else None
        lost = None
        if self._missing is not None:
            if not self._answered:
                raise self._missing
            lost = self._missing.sentence
        return LoadResult(
            scenario=self._load.scenario.name,
            seed=self._load.seed,
            concurrency=self._load.users,
            rate=self._load.rate,
            seconds=seconds,
            records=tuple(self._records),
            energy=energy,
            lost=lost,
            interrupted=self._stop.is_set(),
        )

    @property
    def _halted(self) -> bool:
        return self._halt.is_set() or self._stop.is_set()

    async def _until_halted(self, work: Any, meter: EnergyMeter | None = None) -> None:
        """Awaits `work`; cuts it off as soon as the load is told to stop or finds nobody there."""
        working = asyncio.ensure_future(work)
        beside: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(event.wait()) for event in (self._halt, self._stop)
        ]
        if meter is not None:
            beside.append(asyncio.ensure_future(_sampled(meter)))
        try:
            await asyncio.wait((working, *beside), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, *beside):
                task.cancel()
            await asyncio.wait((working, *beside))
        if not working.cancelled():
            working.result()

    async def _warm_up(self) -> None:
        sessions = self._load.scenario.sessions(
            self._load.seed + _WARMUP_SEED, self._characters_per_token
        )
        turns = (turn for session in sessions for turn in session.turns)
        for turn in islice(turns, self._load.warmup_requests):
            await self._ask(0, 0, turn, time.monotonic(), record=False)

    async def _drive(self, sessions: Iterator[tuple[int, Session]]) -> None:
        if self._load.rate is not None:
            await self._open_loop(sessions, self._load.rate)
            return
        async with asyncio.TaskGroup() as users:
            for _ in range(self._load.users or 1):
                users.create_task(self._user(sessions))

    def _sessions(self) -> Iterator[Session]:
        """All of them, or as many as make up the requests, the last one perhaps cut short."""
        sessions = self._load.scenario.sessions(self._load.seed, self._characters_per_token)
        left = self._load.requests
        if left is None:
            yield from sessions
            return
        for session in sessions:
            turns = session.turns[:left]
            left -= len(turns)
            yield Session(turns)
            if left <= 0:
                return

    async def _user(self, sessions: Iterator[tuple[int, Session]]) -> None:
        while not self._over:
            following = next(sessions, None)
            if following is None:
                return
            await self._converse(*following, due=time.monotonic())

    async def _open_loop(self, sessions: Iterator[tuple[int, Session]], rate: float) -> None:
        chance = random.Random(self._load.seed)
        poisson = self._load.arrivals == "poisson"
        due = time.monotonic()
        async with asyncio.TaskGroup() as visitors:
            for index, session in sessions:
                # `seconds` ends the schedule by the clock of the schedule, not by ours.
                if self._load.seconds is not None and due >= self._start + self._load.seconds:
                    return
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                visitors.create_task(self._converse(index, session, due))
                for _ in session.turns:
                    due += chance.expovariate(rate) if poisson else 1 / rate

    @property
    def _over(self) -> bool:
        seconds = self._load.seconds
        return seconds is not None and time.monotonic() >= self._start + seconds

    async def _converse(self, index: int, session: Session, due: float) -> None:
        for number, turn in enumerate(session.turns):
            if number and self._over:
                return
            async with self._connections:
                await self._ask(index, number, turn, due)
            due = time.monotonic()

    async def _ask(
        self, session: int, number: int, turn: Turn, due: float, *, record: bool = True
    ) -> None:
        sent = time.monotonic()
        stream: AnswerStream | None = None
        error: GatewayError | None = None
        text: list[str] = []
        most = _most_pieces(self._max_tokens(turn))
        try:
            async with (
                asyncio.timeout(self._load.request_seconds),
                self._client.chat(
                    turn.messages, model=self._target.model, options=self._body(turn)
                ) as stream,
            ):
                async for piece in stream:
                    if self._load.keep_text:
                        text.append(piece.text)
                    if len(stream.piece_times) > most:
                        raise _too_long(most)
        except GatewayError as failure:
            error = failure
        except TimeoutError:
            error = _too_slow(self._load.request_seconds)
        self._note_reachability(error)
        if record:
            kept = "".join(text) if self._load.keep_text else None
            self._keep(self._record(session, number, due, sent, stream, error, kept))

    def _body(self, turn: Turn) -> dict[str, Any]:
        temperature = self._load.temperature
        return {
            "max_tokens": self._max_tokens(turn),
            **({} if temperature is None else {"temperature": temperature}),
            **({"ignore_eos": True} if self._load.ignore_eos else {}),
            **turn.options,
            **self._load.options,
        }

    def _max_tokens(self, turn: Turn) -> int:
        return max(round(turn.max_tokens * self._load.output_share), 1)

    def _note_reachability(self, error: GatewayError | None) -> None:
        if error is None or error.code != _UNREACHABLE:
            self._answered = True
            self._unreachable_in_a_row = 0
            return
        self._unreachable_in_a_row += 1
        if not self._answered or self._unreachable_in_a_row >= _MOST_UNREACHABLE:
            self._missing = error
            self._halt.set()

    def _record(
        self,
        session: int,
        number: int,
        due: float,
        sent: float,
        stream: AnswerStream | None,
        error: GatewayError | None,
        text: str | None,
    ) -> RequestRecord:
        ended = time.monotonic()
        times: list[float] = []
        finish_reason = None
        counts = counts_of(None, None)
        if stream is not None:
            ended = stream.ended_at or ended
            times = stream.piece_times
            answer = stream.answer
            finish_reason = answer.finish_reason
            counts = counts_of(answer.usage, answer.engine_timings)
        return RequestRecord(
            session=session,
            turn=number,
            due=due - self._start,
            sent=sent - self._start,
            piece_times=tuple(when - self._start for when in times),
            ended=ended - self._start,
            prompt_tokens=counts.prompt,
            cached_tokens=counts.cached,
            output_tokens=counts.output,
            drafted=counts.drafted,
            accepted=counts.accepted,
            finish_reason=finish_reason,
            error=None if error is None else error.sentence,
            error_code=None if error is None else error.code,
            text=text,
        )

    def _keep(self, record: RequestRecord) -> None:
        self._records.append(record)
        if self._on_record is not None:
            self._on_record(record)


async def _sampled(meter: EnergyMeter) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            meter.sample()


def _most_pieces(max_tokens: int) -> int:
    """More than any tokenizer makes of so many tokens; an endless answer ends there."""
    return max_tokens * _PIECES_PER_TOKEN + _PIECES_MORE


def _too_long(pieces: int) -> GatewayError:
    return GatewayError(
        f"The answer had more than {pieces:,} pieces, many more tokens than were asked for.",
        code="answer-too-long",
    )


def _too_slow(seconds: float) -> GatewayError:
    return GatewayError(f"No whole answer within {seconds:g} s.", code="timed-out")
