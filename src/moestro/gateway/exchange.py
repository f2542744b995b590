"""HTTP requests to an engine and their answers, one after the other on a connection.

Just what an engine on loopback needs, and no more: a general HTTP client takes about as long to
send a request as everything else that the gateway does for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import cast

import httptools

from moestro.gateway.defaults import MAX_ANSWER_BYTES

WRITTEN_AT_ONCE_BYTES = 1 << 20
"""A larger body is written in pieces, so that other requests get their turn in between."""

MOST_UNREAD_BYTES = 1 << 18
"""Of an answer that nobody reads, before the engine has to wait."""

HELD_BACK_BYTES = 1 << 15
"""Of a fast stream; more than comes between two bars."""

MOST_HEAD_BYTES = 64 * 1024


class LinkBroken(ConnectionError):
    """The connection ended before the answer did, or the engine does not speak HTTP."""


class Exchange(asyncio.Protocol):
    """Made for one connection: `send`, then `piece` until it gives nothing; and once more, as long
    as it is `free`.

    `on_lost` is told when the connection is gone.
    """

    def __init__(self, on_lost: Callable[[Exchange], None] = lambda _exchange: None) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = True
        self._paused = False
        self._broken: str | None = None
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.content_type = ""
        """Without its parameters, in small letters."""

        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._unread = self._head_bytes = 0
        self._has_head = self._whole = self._bounded = self._stays = False

    @property
    def connected(self) -> bool:
        return self._transport is not None

    @property
    def broken(self) -> bool:
        """Whether nothing more will come of it."""
        return self._broken is not None

    @property
    def free(self) -> bool:
        """Whether its answer is whole, and the engine keeps the connection for another one."""
        return self._whole and self._stays and self._broken is None and not self._paused

    async def send(self, head: bytes, body: bytes) -> None:
        """Returns with the head of the answer.

        Raises:
            LinkBroken: there is none.
        """
        if self._transport is None:
            raise LinkBroken(self._broken or "There is no connection.")
        if self._whole:
            self._begin()
        if len(body) <= WRITTEN_AT_ONCE_BYTES:
            self._transport.write(head + body)
        else:
            await self._write_large(head, body)
        while not self._has_head:
            await self._wait()

    async def _write_large(self, head: bytes, body: bytes) -> None:
        """An answer that comes before the whole request was sent is the answer."""
        assert self._transport is not None
        self._transport.write(head)
        for start in range(0, len(body), WRITTEN_AT_ONCE_BYTES):
            while not self._writable and not self._has_head:
                await self._wait()
            if self._has_head or self._broken is not None:
                self._stays = False  # the engine would take the next request for the rest of this
                return
            self._transport.write(body[start : start + WRITTEN_AT_ONCE_BYTES])
            await asyncio.sleep(0)

    async def piece(self) -> bytes:
        """What has come of the body since the last call, or what comes next; empty at its end.

        Raises:
            LinkBroken: the connection broke; what came before that was given first.
        """
        while not self._pieces:
            if self._whole:
                return b""
            await self._wait()
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._unread = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return found

    def hold_back(self, many: bool) -> bool:
        """Whether from now on the loop is woken only by `HELD_BACK_BYTES`, or by the end of the
        connection; `look` reads what has come. Never so if the answer ends and the connection does
        not, nor where the system can't. Without `many` the loop is woken by every byte again."""
        if self._transport is None or (many and (self._stays or not self._has_head)):
            return False
        least = HELD_BACK_BYTES if many else 1
        try:
            its_socket = self._transport.get_extra_info("socket")
            its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
        except OSError:  # not on Windows
            return False
        return many

    def look(self) -> None:
        """Reads what has come, without the loop."""
        if self._transport is None or self._transport.is_closing() or self._paused:
            return
        descriptor = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):  # there is nothing, or the loop will hear what it is
            data = os.read(descriptor, MOST_UNREAD_BYTES)
            if data:
                self.data_received(data)

    async def rest(self, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The body, or as much of it as the limit allows.

        Raises:
            LinkBroken: as `piece`.
        """
        body = bytearray()
        while piece := await self.piece():
            body += piece
            if len(body) >= limit_bytes:
                return bytes(body[:limit_bytes])
        return bytes(body)

    def close(self) -> None:
        """At once; whoever still reads gets what has come, and then a LinkBroken."""
        if self._transport is not None:
            self._transport.abort()
        self._break("The connection was closed.")

    async def _wait(self) -> None:
        if self._broken is not None:
            raise LinkBroken(self._broken)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, because: str) -> None:
        if self._broken is None:
            self._broken = because
        self._wake()

    # What the connection says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no children of it

    def data_received(self, data: bytes) -> None:
        if self._whole:
            self._fail("The engine said more than its answer.")
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"The engine's answer is not HTTP: {error}")
        if not self._has_head and self._head_bytes > MOST_HEAD_BYTES:
            self._fail(f"The head of an answer takes more than {MOST_HEAD_BYTES} bytes.")
        if self._unread > MOST_UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if exc is None and self._has_head and not self._bounded:
            self._whole = True  # the end of the connection is that of such an answer
        self._break(f"The connection broke: {exc or 'the engine closed it'}.")
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    def _fail(self, because: str) -> None:
        self._break(because)
        if self._transport is not None:
            self._transport.abort()

    # What the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self.content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            case b"content-length" | b"transfer-encoding":
                self._bounded = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # there is more to come than “100 Continue”
            self.content_type = ""
            return
        self.status = status
        self._has_head = True
        self._stays = self._bounded and self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        self._whole = self._has_head
