"""Who is served next: a bounded queue in front of an engine that may be away.

Requests that an engine left in the middle come first. The others wait their turn by key: each key
that has somebody waiting gets one place after the other, so one that sends a thousand requests
does not keep another one waiting. As many go to the engine as it has streams, and a few more: the
next one is there when a stream ends.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

from moestro.engine import EngineState
from moestro.gateway import failure
from moestro.gateway.failure import RequestFailed
from moestro.gateway.life import Life

MOST_WAITING = 256
WAIT_SECONDS = 300.0
"""How long a request waits for its turn: longer than a large model takes to be loaded again."""

SPARE = 0.25
"""Of its streams, and one at least: requests that are with the engine already when one ends."""

ALONE_FROM = 2
"""Engines that crashed under a request after which it is tried once more, with nobody beside it."""


@dataclass(eq=False)
class Ticket:
    """One request on its way, over all engines that it meets. `crashes` counts those that ended by
    themselves while it was with them; not those that somebody killed."""

    key: str = ""
    crashes: int = 0
    interrupted: bool = False
    place: asyncio.Future[Life] | None = field(default=None, repr=False)

    @property
    def alone(self) -> bool:
        return self.crashes >= ALONE_FROM


class Queue:
    """`open`, `close` and `refuse` are for the owner of the engines, `turn` for requests."""

    def __init__(
        self, most_waiting: int = MOST_WAITING, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self.most_waiting = most_waiting
        self.wait_seconds = wait_seconds
        self.wanted = asyncio.Event()
        """Set when somebody comes; whoever waits for it clears it."""

        self._life: Life | None = None
        self._places = 0
        self._alone: Ticket | None = None
        self._refusal: failure.Failure | None = None
        self._interrupted: deque[Ticket] = deque()
        self._suspects: deque[Ticket] = deque()
        self._by_key: OrderedDict[str, deque[Ticket]] = OrderedDict()

    @property
    def waiting(self) -> int:
        return (
            len(self._interrupted)
            + len(self._suspects)
            + sum(len(line) for line in self._by_key.values())
        )

    @property
    def _anybody(self) -> bool:
        return bool(self._interrupted or self._suspects or self._by_key)

    def open(self, life: Life, streams: int) -> None:
        """From now on requests go to this engine."""
        self._life = life
        self._places = streams + max(1, int(SPARE * streams))
        self._serve()

    def close(self) -> None:
        """Nobody goes anywhere until the next `open`."""
        self._life = None

    def refuse(self, refusal: failure.Failure) -> None:
        """Sends everyone away who waits, and whoever comes: the service ends."""
        self._refusal = refusal
        for ticket in self._everyone():
            if ticket.place is not None and not ticket.place.done():
                ticket.place.set_exception(RequestFailed(refusal))

    @contextmanager
    def _waiting(self, ticket: Ticket) -> Iterator[asyncio.Future[Life]]:
        ticket.place = asyncio.get_running_loop().create_future()
        if ticket.alone:
            line = self._suspects
        elif ticket.interrupted:
            line = self._interrupted
        else:
            line = self._by_key.setdefault(ticket.key, deque())
        line.append(ticket)
        self.wanted.set()
        try:
            yield ticket.place
        finally:
            if ticket in line:
                line.remove(ticket)
            if not line and self._by_key.get(ticket.key) is line:
                del self._by_key[ticket.key]
            if line is self._suspects:  # who waited for it may go now
                self._serve()

    def turn(
        self, ticket: Ticket, wait_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Life]:
        """An engine that answers, when it is this request's turn, and for as long as it needs it.
        Entering raises what `_enter` does."""
        return _Turn(self, ticket, self.wait_seconds if wait_seconds is None else wait_seconds)

    def check(self) -> None:
        """
        Raises:
            RequestFailed: 503, a new request would not be let in.
        """
        if self._refusal is not None:
            raise RequestFailed(self._refusal)
        if self.waiting >= self.most_waiting:
            raise RequestFailed(failure.queue_full(self.most_waiting))

    async def _enter(self, ticket: Ticket, seconds: float) -> Life:
        """
        Raises:
            RequestFailed: 503 with Retry-After: too many wait, or it took too long.
        """
        if self._refusal is not None:
            raise RequestFailed(self._refusal)
        if not ticket.interrupted:
            self.check()
        if not self._anybody and not ticket.alone and (life := self._free_life()) is not None:
            life.begin()
            return life
        with self._waiting(ticket) as place:
            self._serve()
            if place.done():
                return place.result()
            try:
                async with asyncio.timeout(seconds):
                    return await place
            except BaseException as error:
                if place.done() and not place.cancelled() and place.exception() is None:
                    self._leave(ticket, place.result())
                if isinstance(error, TimeoutError):
                    raise RequestFailed(failure.waited_too_long(seconds)) from None
                raise

    def _leave(self, ticket: Ticket, life: Life) -> None:
        life.end()
        if self._alone is ticket:
            self._alone = None
        self._serve()

    def _serve(self) -> None:
        """Gives away the places that are free."""
        while (life := self._free_life()) is not None:
            ticket = self._next()
            if ticket is None:
                return
            assert ticket.place is not None
            if ticket.place.done():
                continue
            if ticket.alone:
                self._alone = ticket
            life.begin()
            ticket.place.set_result(life)

    def _free_life(self) -> Life | None:
        """The engine, if it has a place for one more."""
        life = self._life
        if life is None or self._alone is not None or life.state is not EngineState.READY:
            return None
        return life if life.running < (1 if self._suspects else self._places) else None

    def _next(self) -> Ticket | None:
        for line in (self._suspects, self._interrupted):
            if line:
                return line.popleft()
        if not self._by_key:
            return None
        key, line = self._by_key.popitem(last=False)
        ticket = line.popleft()
        if line:
            self._by_key[key] = line  # behind the others
        return ticket

    def _everyone(self) -> list[Ticket]:
        lines = [self._interrupted, self._suspects, *self._by_key.values()]
        return [ticket for line in lines for ticket in line]


class _Turn:
    """Of one request at one engine."""

    __slots__ = ("_life", "_queue", "_seconds", "_ticket")

    def __init__(self, queue: Queue, ticket: Ticket, seconds: float) -> None:
        self._queue = queue
        self._ticket = ticket
        self._seconds = seconds
        self._life: Life | None = None

    async def __aenter__(self) -> Life:
        self._life = life = await self._queue._enter(self._ticket, self._seconds)
        return life

    async def __aexit__(self, *_error: object) -> None:
        assert self._life is not None
        self._queue._leave(self._ticket, self._life)
