"""The owner of the engines: one answers, and when it is gone the next one does.

Whoever needs an engine takes its turn in `queue` at the moment of use. Nobody keeps a copy of an
engine's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from moestro.engine import Engine, EngineExit, EngineRequest, EngineState
from moestro.errors import EngineError, EngineStartFailed, MoestroError
from moestro.gateway import failure
from moestro.gateway.failure import Failure
from moestro.gateway.growth import GrowthWatch
from moestro.gateway.life import Life, Why
from moestro.gateway.pulse import until_silent
from moestro.gateway.queue import Queue
from moestro.gateway.served_model import ServedModel

MakeEngine = Callable[[EngineRequest], Engine]

Milder = Callable[[EngineRequest, EngineError], tuple[EngineRequest, str] | None]
"""What to try after a start that failed, and a sentence that says what is given up for it; None
where nothing milder would help."""

EXIT_REASON_SECONDS = 1.5
"""How long a broken request waits to learn why: a socket breaks before an exit is reaped."""

FIRST_DELAY_SECONDS = 1.0
MOST_DELAY_SECONDS = 60.0
"""Between tries of an engine that did not become ready; one that did is started again at once."""

REPLACE_DRAIN_SECONDS = 30.0
"""How long requests may stay with an engine that has to end before the next one can start. After
that they are cut, and go on with the new one."""

HAND_OVER_SECONDS = 5.0
"""The same where the next one is there already. Meanwhile new requests wait: two engines that
compute on the same processors, each with threads that spin for the others, are many times slower
than one after the other."""

LOOK_SECONDS = 0.2
"""How often a service that unloads idle engines looks while one has work."""

MOST_NOTES = 200


@dataclass(frozen=True, slots=True)
class Status:
    state: EngineState
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to an engine. `at` is in seconds since the epoch."""

    at: float
    engine: int
    state: EngineState | None
    text: str

    @property
    def sentence(self) -> str:
        who = f"engine {self.engine}" if self.engine else "engines"
        return f"{who} {self.state}: {self.text}" if self.state else f"{who}: {self.text}"


@dataclass(slots=True)
class _Order:
    """A replacement that somebody wants, of that engine and no other where `of` names one. `kind`
    is what it counts as; `done` says when it is there, or why not."""

    request: EngineRequest
    because: str
    kind: Why
    of: Life | None
    done: asyncio.Future[None]


class Service:
    """`make` makes an engine that is not started yet; each one is used once.

    `milder` finds settings that need less where the machine had no room (see `Milder`).
    `fits_beside` says whether the machine has room for one more engine like that while the present
    one runs. `on_note` is told of everything that happens to the engines, and so are `listeners`,
    which come and go. `growth` replaces those that take ever more memory. After `unload_seconds`
    without a request the engine is ended; the next request waits for another one.
    """

    def __init__(
        self,
        make: MakeEngine,
        request: EngineRequest,
        *,
        queue: Queue | None = None,
        milder: Milder = lambda _request, _error: None,
        fits_beside: Callable[[EngineRequest], bool] = lambda _request: False,
        on_note: Callable[[Note], None] = lambda _note: None,
        growth: GrowthWatch | None = None,
        unload_seconds: float | None = None,
    ) -> None:
        self.request = request
        self.model = ServedModel.of(request)
        self.queue = queue if queue is not None else Queue()
        self.notes: deque[Note] = deque(maxlen=MOST_NOTES)
        self.restarts = 0
        self.growth = growth
        self._unload_seconds = unload_seconds
        self._asleep = False
        self.restart_reasons: Counter[Why] = Counter()
        self.listeners: set[Callable[[Note], None]] = set()
        self._make = make
        self._milder = milder
        self._fits_beside = fits_beside
        self._on_note = on_note
        self._numbers = count(1)
        self._life: Life | None = None
        self._coming: Life | None = None
        self._old: set[Life] = set()
        self._farewells: set[asyncio.Task[None]] = set()
        self._tending: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._ordered: asyncio.Task[_Order] | None = None
        self._stopping = False
        self._last_words: str | None = None
        self._started_at = time.monotonic()

    # What others see

    @property
    def life(self) -> Life | None:
        """Of the engine that answers, or of the last one that did."""
        return self._life

    @property
    def engine(self) -> Engine | None:
        """The one that answers, or the last one that did."""
        return self._life.engine if self._life is not None else None

    @property
    def status(self) -> Status:
        if self._stopping:
            return Status(EngineState.STOPPED, "The gateway is shutting down.")
        life = self._life
        if self._asleep and self._coming is None:
            reason = self._last_words or "The next request loads the model."
            return Status(EngineState.SLEEPING, reason)
        if life is not None and life.state is EngineState.READY:
            return Status(EngineState.READY)
        if life is not None and life.state is EngineState.DRAINING:
            return Status(EngineState.DRAINING, "The engine is being replaced.")
        if self._coming is None and life is not None and life.state is not EngineState.STOPPED:
            ended = life.exit.sentence if life.exit is not None else "The engine has ended."
            return Status(EngineState.FAILED, self._last_words or ended)
        if self._coming is None and self._last_words is not None:
            return Status(EngineState.FAILED, self._last_words)
        before = f"{self._last_words} " if self._last_words else ""
        return Status(EngineState.STARTING, f"{before}The engine is loading the model.")

    @property
    def stopping(self) -> bool:
        """Whether the end was asked for here, and not the engine's own."""
        return self._stopping

    @property
    def running(self) -> int:
        """Requests that are with an engine that takes more."""
        return self._life.running if self._life is not None else 0

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._started_at

    def refusal(self) -> Failure | None:
        """Why a request would not be answered at once; None when it would."""
        status = self.status
        serves = status.state in (EngineState.READY, EngineState.SLEEPING)
        return None if serves else not_ready(status)

    async def end_of(self, life: Life) -> EngineExit | None:
        """How that engine ended; None if it has not, for as long as it takes to notice."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_REASON_SECONDS):
                await life.ended()
        return life.exit

    # Start and end

    async def start(self, timeout_seconds: float | None = None) -> None:
        """Returns when the engine answers; from then on there is always one, or one on its way.

        Raises:
            EngineStartFailed: it ended first, was not ready in time, or was stopped.
        """
        if self._stopping:
            raise _stopped_early()
        life, trying = None, self.request
        while life is None:
            try:
                life = await self._started(trying, timeout_seconds)
            except EngineError as error:
                milder = None if self._stopping else self._milder(trying, error)
                if self._stopping:
                    raise _stopped_early() from error
                if milder is None:
                    raise
                trying = self._step_down(*milder)
        self._take(life)
        self._tending = asyncio.create_task(self._tend(), name="engines")
        self._tending.add_done_callback(self._tending_ended)
        if self.growth is not None:
            self._watching = asyncio.create_task(self.growth.run(self), name="growth")
            self._watching.add_done_callback(self._growth_ended)

    def _tending_ended(self, tending: asyncio.Task[None]) -> None:
        error = None if tending.cancelled() else tending.exception()
        if error is not None:  # a fault of ours
            self._note(None, None, f"Engines are no longer looked after: {error!r}")

    def _growth_ended(self, watching: asyncio.Task[None]) -> None:
        error = None if watching.cancelled() else watching.exception()
        if error is not None:  # a fault of ours; what is served goes on without it
            self._note(None, None, f"Growth is no longer watched: {error!r}")

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Breaks what is in progress, then ends the engines. May be called at any moment."""
        self._stopping = True
        self.refuse_waiting()
        for task in (self._watching, self._tending):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        for farewell in self._farewells:
            farewell.cancel()
        lives = self._old | {life for life in (self._life, self._coming) if life is not None}
        await asyncio.gather(*(life.stop("as asked", grace_seconds) for life in lives))

    def refuse_waiting(self) -> None:
        """Nobody waits any longer, for the service ends; what is with an engine stays there."""
        self.queue.refuse(
            failure.unavailable(
                "The gateway is shutting down.",
                "shutting_down",
                source="gateway",
                hint="Try again in a moment, if it is to come back.",
            )
        )

    async def replace(
        self,
        request: EngineRequest | None = None,
        *,
        because: str,
        kind: Why = Why.REPLACED,
        of: Life | None = None,
    ) -> None:
        """Another engine in the place of this one, without a request lost. None: of the same kind.
        Nothing is done if it is no longer `of` that answers. `kind` is what it counts as.

        Raises:
            EngineStartFailed: the new one does not start; the old one stays, or comes back.
        """
        if self._stopping or self._tending is None:
            raise _stopped_early()
        done = asyncio.get_running_loop().create_future()
        order = _Order(request or self.request, because, kind, of, done)
        self._orders.put_nowait(order)
        await order.done

    # One task owns all that follows

    async def _tend(self) -> None:
        try:
            while True:
                assert self._life is not None
                order = self._next_order()
                if self._asleep:
                    wanted = asyncio.create_task(self.queue.wanted.wait())
                    try:
                        await asyncio.wait((order, wanted), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        wanted.cancel()
                    if order.done():
                        await self._replace(self._taken_order())
                    else:
                        await self._wake()
                    continue
                idle = asyncio.create_task(self._idle(self._life))
                ended = asyncio.create_task(self._life.ended())
                silent = asyncio.create_task(until_silent(self._life))
                try:
                    events = (order, ended, silent, idle)
                    await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (ended, silent, idle):
                        task.cancel()
                if silent.done() and not silent.cancelled() and not ended.done():
                    await self._life.kill()
                    await self._life.ended()
                    await self._restart(self._life)
                    continue
                if ended.done() and not ended.cancelled():
                    await self._restart(self._life)
                elif order.done():
                    await self._replace(self._taken_order())
                elif idle.done() and not idle.cancelled():
                    await self._sleep(self._life)
        finally:
            if self._ordered is not None and self._ordered.done():
                self._orders.put_nowait(self._taken_order())
            elif self._ordered is not None:
                self._ordered.cancel()
            while not self._orders.empty():
                _tell(self._orders.get_nowait(), _stopped_early())

    def _next_order(self) -> asyncio.Task[_Order]:
        if self._ordered is None:
            self._ordered = asyncio.create_task(self._orders.get())
        return self._ordered

    def _taken_order(self) -> _Order:
        assert self._ordered is not None
        due, self._ordered = self._ordered.result(), None
        return due

    async def _idle(self, life: Life) -> None:
        """Returns when nobody has wanted anything for so long."""
        if self._unload_seconds is None:
            await asyncio.Event().wait()
        assert self._unload_seconds is not None
        while True:
            left = life.idle_since + self._unload_seconds - time.monotonic()
            if left <= 0 and not life.running:
                return
            await asyncio.sleep(max(left, LOOK_SECONDS))

    async def _sleep(self, life: Life) -> None:
        if life.running:  # somebody came in this very moment
            return
        self.queue.close()
        self.queue.wanted.clear()
        self._asleep = True
        await life.stop("nobody asked for so long; the next request loads the model")

    async def _wake(self) -> None:
        """Whoever asked waits in the queue until an engine is there."""
        self._last_words = None
        self._take(await self._until_ready(self.request))

    async def _restart(self, old: Life) -> None:
        self.queue.close()
        ended = old.exit.sentence if old.exit is not None else "The engine has ended."
        self._last_words = ended
        self.restarts += 1
        self.restart_reasons[old.why_it_ended] += 1
        self._take(await self._until_ready(self.request))

    async def _until_ready(self, request: EngineRequest) -> Life:
        """Tries for ever, in ever longer intervals. A replacement that is ordered meanwhile is
        tried in between, and takes the place of `request` if it starts."""
        delay, due = 0.0, None
        while True:
            wanted = request if due is None else due.request
            try:
                life = await self._started(wanted)
            except MoestroError as error:
                if due is not None:
                    _tell(due, error)
                    due = None
                milder = self._milder(wanted, error) if isinstance(error, EngineError) else None
                if milder is not None and wanted is request:
                    request = self._step_down(*milder)
                    continue
                delay = min(max(2 * delay, FIRST_DELAY_SECONDS), MOST_DELAY_SECONDS)
                self._last_words = f"{error.sentence} The next try is in {delay:.0f} s."
                self._note(None, None, self._last_words)
                order = self._next_order()
                await asyncio.wait((order,), timeout=delay)
                self._last_words = error.sentence
                if order.done():
                    due = self._taken_order()
                    if due.of is not None:  # that engine is gone already
                        _tell(due, None)
                        due = None
            except BaseException:
                if due is not None:
                    _tell(due, _stopped_early())
                raise
            else:
                if due is not None:
                    self.request = due.request
                    _tell(due, None)
                return life

    async def _replace(self, order: _Order) -> None:
        old = self._life
        assert old is not None
        if order.of not in (None, old):
            _tell(order, None)
            return
        try:
            if self._fits_beside(order.request):
                await self._replace_beside(old, order)
            else:
                await self._replace_after(old, order)
        except MoestroError as error:
            _tell(order, error)
        except BaseException:
            _tell(order, _stopped_early())
            raise
        else:
            _tell(order, None)

    async def _replace_beside(self, old: Life, order: _Order) -> None:
        """The new one starts while the old one still answers."""
        new = await self._started(order.request)
        self.request = order.request
        self.restart_reasons[order.kind] += 1
        self._old.add(old)
        self.queue.close()
        old.drain(order.because)
        if not await old.drained(HAND_OVER_SECONDS):
            self._note(old.number, None, f"{old.running} requests go on with the next engine")
        self._take(new)
        farewell = asyncio.create_task(self._stop_old(old, order.because), name="farewell")
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    async def _replace_after(self, old: Life, order: _Order) -> None:
        """There is room for one: requests wait until the new one is there."""
        self.queue.close()
        old.drain(order.because)
        await self._end(old, order.because)
        self._last_words = f"It is being replaced: {order.because}."
        try:
            new = await self._started(order.request)
        except MoestroError:
            self._take(await self._until_ready(self.request))
            raise
        self.request = order.request
        self._take(new)
        self.restart_reasons[order.kind] += 1

    async def _end(self, old: Life, because: str) -> None:
        if not await old.drained(REPLACE_DRAIN_SECONDS):
            self._note(old.number, None, f"{old.running} requests go on with the next engine")
        await self._stop_old(old, because)

    async def _stop_old(self, old: Life, because: str) -> None:
        await old.stop(because)
        self._old.discard(old)

    async def _started(self, request: EngineRequest, timeout_seconds: float | None = None) -> Life:
        """A new engine that is ready.

        Raises:
            EngineError: it cannot be made, or did not start.
        """
        engine = self._make(request)
        life = Life(next(self._numbers), engine, request, self._changed)
        self._coming = life
        try:
            await life.start(timeout_seconds)
        except EngineError as error:
            if not self._stopping:
                self._coming, self._last_words = None, error.sentence
            raise
        return life

    def _take(self, life: Life) -> None:
        """This engine answers from now on."""
        self._life, self._coming, self._last_words = life, None, None
        self._asleep = False
        engine = life.engine
        self.model = ServedModel.of(life.request, engine.stream_context, engine.takes)
        self.queue.open(life, life.request.settings.parallel)

    def _step_down(self, request: EngineRequest, said: str) -> EngineRequest:
        self._last_words = said
        self.request = request
        self._note(None, None, said)
        return request

    def _changed(self, life: Life, because: str) -> None:
        self._note(life.number, life.state, because)

    def tell(self, engine: int, text: str) -> None:
        """Something about an engine that people should know."""
        self._note(engine, None, text)

    def _note(self, engine: int | None, state: EngineState | None, text: str) -> None:
        note = Note(time.time(), engine or 0, state, text)
        self.notes.append(note)
        self._on_note(note)
        for listen in tuple(self.listeners):
            listen(note)


def _tell(order: _Order, error: MoestroError | None) -> None:
    """Who waits for it, if anybody still does."""
    if order.done.done():
        return
    if error is None:
        order.done.set_result(None)
    else:
        order.done.set_exception(error)


def _stopped_early() -> EngineStartFailed:
    return EngineStartFailed("The service was stopped before its engine was ready.")


def not_ready(status: Status) -> Failure:
    reason = status.reason or "The engine is not ready."
    match status.state:
        case EngineState.STARTING:
            return failure.unavailable(
                reason, "engine_starting", hint="GET /health says when it is ready."
            )
        case EngineState.DRAINING:
            return failure.unavailable(
                reason, "engine_replaced", hint="GET /health says when the next one is ready."
            )
        case EngineState.STOPPED:
            return failure.unavailable(reason, "shutting_down", source="gateway")
        case _:
            return failure.unavailable(
                reason, "engine_gone", hint="A new engine is tried; its log says what is wrong."
            )
