"""Where an answer leaves: collected here, so that a slow client holds up nobody but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from starlette.types import Receive, Send

MOST_BYTES = 16 << 20
"""That a client may be behind. An answer of a million tokens is about as long."""

SEND_SECONDS = 120.0
"""How long a client may take nothing at all before its connection is given up."""


async def as_long_as_wanted(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Does the work until it is done or the client has left. Raises what the work raises."""
    doing = asyncio.create_task(work)
    gone = asyncio.create_task(_client_left(receive))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (doing, gone):
            task.cancel()
        # Also when this request itself is cancelled: nothing of it may outlive it.
        await asyncio.wait((doing, gone))
    if not doing.cancelled():
        doing.result()


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class ClientTooSlow(ConnectionError):
    """It took nothing for `SEND_SECONDS`."""


class Outlet:
    """Takes an answer as it comes and sends it as the client takes it. On leaving the context the
    rest is sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._pieces: list[bytes] = []
        self._size = 0
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._ended = False
        self._more = asyncio.Event()
        self._less = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sends_since: float | None = None
        self._next_look: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head = (status, headers)
        self._more.set()

    def write(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._size += len(data)
            self._more.set()

    @property
    def full(self) -> bool:
        """Whether the client is too far behind."""
        return self._size > MOST_BYTES

    async def room(self) -> None:
        """Returns when it no longer is."""
        while self.full and self._task is not None and not self._task.done():
            self._less.clear()
            await self._less.wait()

    async def __aenter__(self) -> Outlet:
        self._task = asyncio.create_task(self._run(), name="outlet")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        if error is None:
            self._ended = True
            self._more.set()
        else:
            self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            self._task.cancel()
            if error is None:
                raise

    async def _run(self) -> None:
        # One timeout for all that is sent: one for each event would cost as much as its sending.
        try:
            async with asyncio.timeout(None) as limit:
                self._look(limit)
                try:
                    await self._send_all()
                finally:
                    if self._next_look is not None:
                        self._next_look.cancel()
        except TimeoutError:
            raise ClientTooSlow(f"took nothing for {SEND_SECONDS:g} s") from None

    def _look(self, limit: asyncio.Timeout) -> None:
        """Ends the sending if the client has taken nothing for too long, or looks again when it
        could be so."""
        now = self._loop.time()
        due = (now if self._sends_since is None else self._sends_since) + SEND_SECONDS
        if due <= now:
            limit.reschedule(now)
        else:
            self._next_look = self._loop.call_at(due, self._look, limit)

    async def _send_all(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            if self._head is not None:
                (status, headers), self._head = self._head, None
                await self._out(
                    {"type": "http.response.start", "status": status, "headers": headers}
                )
            pieces, self._pieces = self._pieces, []
            ended = self._ended
            if pieces or ended:
                body = b"".join(pieces)
                await self._out(
                    {"type": "http.response.body", "body": body, "more_body": not ended}
                )
                self._size -= len(body)
                self._less.set()
            if ended:
                return

    async def _out(self, message: dict[str, object]) -> None:
        self._sends_since = self._loop.time()
        await self._send(message)
        self._sends_since = None
