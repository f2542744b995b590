"""Where an answer leaves: collected here, so that a slow client holds up nobody but itself."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Send

MOST_BYTES = 16 << 20
"""That a client may be behind. An answer of a million tokens is about as long."""

SEND_SECONDS = 120.0
"""How long a client may take nothing at all before its connection is given up."""


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

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._head = (status, headers)
        self._more.set()

    def write(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._size += len(data)
            self._more.set()

    async def room(self) -> None:
        """Returns when the client is not too far behind."""
        while self._size > MOST_BYTES and self._task is not None and not self._task.done():
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
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ClientTooSlow(f"took nothing for {SEND_SECONDS:g} s") from None
