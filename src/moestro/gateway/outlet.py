"""Where an answer leaves: collected here, so that a slow client holds up nobody but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any

from starlette.types import Message, Scope, Send

from moestro.gateway.begun import Begun

MOST_BYTES = 16 << 20
"""That a client may be behind. An answer of a million tokens is about as long."""

SEND_SECONDS = 120.0
"""How long a client may take nothing at all before its connection is given up."""


WHEN_LEFT = "moestro.when_left"
"""Where a request's scope holds what takes a function to call when the client has left, and gives
one that forgets it. To wait for `receive` instead would take a task of its own."""

WhenLeft = Callable[[Callable[[], None]], Callable[[], None]]


async def as_long_as_wanted(work: Coroutine[Any, Any, None], scope: Scope) -> None:
    """Does the work until it is done or the client has left. Raises what the work raises."""
    task = asyncio.current_task()
    assert task is not None
    cancelling, has_left = task.cancelling(), False
    when_left: WhenLeft = scope[WHEN_LEFT]

    def leave() -> None:
        nonlocal has_left
        has_left = True
        task.cancel()

    forget = when_left(leave)
    try:
        await work
    except asyncio.CancelledError:
        # Not where somebody else has cancelled this request as well.
        if not has_left or task.uncancel() > cancelling:
            raise
    finally:
        forget()


class ClientTooSlow(Exception):
    """It took nothing for `SEND_SECONDS`. No OSError: those are the engine's connection."""


ABORT = "moestro.abort"
"""Where a request's scope holds what cuts its connection, unsent bytes and all."""


async def give_up(scope: Scope) -> None:
    """Cuts the connection of a client that takes nothing."""
    abort = scope.get(ABORT)
    if abort is not None:
        abort()
        await asyncio.sleep(0)  # the web server has to hear of it first


class Outlet:
    """Takes an answer as it comes and sends it as the client takes it: at once, while the client
    keeps up; from a task of its own once it does not. On leaving the context the rest is sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._less = asyncio.Event()
        self._behind: asyncio.Task[None] | None = None

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        head = {"type": "http.response.start", "status": status, "headers": headers}
        if self._is_behind():
            self._head = head
        else:
            self._out(head)

    def write(self, data: bytes) -> None:
        """
        Raises:
            ClientTooSlow: it is given up.
        """
        if data:
            self._write(data)

    def end(self, data: bytes = b"") -> None:
        """Writes the last of the answer: together with its end, which is less work for all."""
        self._ended = True
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._is_behind():
            self._pieces.append(data)
            self._size += len(data)
        else:
            self._out({"type": "http.response.body", "body": data, "more_body": not self._ended})

    @property
    def full(self) -> bool:
        """Whether the client is too far behind."""
        return self._size > MOST_BYTES

    async def room(self) -> None:
        """Returns when it no longer is."""
        while self.full and self._is_behind():
            self._less.clear()
            await self._less.wait()

    async def __aenter__(self) -> Outlet:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            if not self._ended:
                self.end()
        elif self._behind is not None:
            self._behind.cancel()
        if self._behind is None:
            return
        try:
            await self._behind
        except asyncio.CancelledError:
            self._behind.cancel()
            if error is None:
                raise

    def _is_behind(self) -> bool:
        """Raises what its task has raised."""
        if self._behind is not None and self._behind.done():
            self._behind.result()
            self._behind = None
        return self._behind is not None

    def _out(self, message: Message) -> None:
        sending = Begun(self._send(message))
        if not sending.done:
            self._size = len(message.get("body", b""))
            self._behind = asyncio.create_task(self._catch_up(sending), name="outlet")

    async def _catch_up(self, sending: Awaitable[None]) -> None:
        """Sends until nothing is left, and the end of the answer if it has come."""
        size = self._size
        try:
            while True:
                async with asyncio.timeout(SEND_SECONDS):
                    await sending
                self._size -= size
                self._less.set()
                if self._head is not None:
                    sending, size, self._head = self._send(self._head), 0, None
                elif self._pieces:
                    body = b"".join(self._pieces)
                    self._pieces.clear()
                    message = {
                        "type": "http.response.body", "body": body, "more_body": not self._ended
                    }  # fmt: skip
                    sending, size = self._send(message), len(body)
                else:
                    return
        except TimeoutError:
            raise ClientTooSlow(f"took nothing for {SEND_SECONDS:g} s") from None
        finally:
            self._less.set()
