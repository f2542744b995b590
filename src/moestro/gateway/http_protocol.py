"""HTTP parsing with bounds on heads and connections, and with our envelope for what is not HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from moestro.gateway import failure, request_id
from moestro.gateway.defaults import DISCARD_SECONDS
from moestro.gateway.outlet import ABORT, SEND_SECONDS, WHEN_LEFT

if TYPE_CHECKING:
    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        Scope,
    )

MAX_HEAD_BYTES = 64 * 1024

HEAD_SECONDS = 30.0
"""How long a request's head may take: from the connection on, or from its own first byte."""

MOST_BEHIND = 8
"""Requests that wait behind the one that is answered, on one connection. No client sends so many:
one read may hold thousands."""

SHARE_OF_FILES = 0.75
"""Of the files that the system lets this process have open, so many may be connections of clients;
the others are for engines, logs and those who are told that there is no room."""

MOST_FILES = 65536


class TooManyBehind(Exception):
    """One request more than may wait."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's parser waits for the end of a request however long it grows and takes; this one
    gives up. It takes no more connections than there are files for, and nothing that a client sends
    behind a request breaks into the answer."""

    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None
    _deaf = False
    _unsent: asyncio.TimerHandle | None = None
    _leave: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._refuse(failure.too_many_connections())
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None
        super().connection_lost(exc)
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn tells the last request, and others may wait behind this one.
            self._answering.disconnected = True
            self._answering.message_event.set()
            if self._leave is not None:
                self._leave()

    @property
    def _busy(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(failure.head_too_slow(HEAD_SECONDS))
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._deaf:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes and not self.transport.is_closing():
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("too long")
            elif not self._busy:
                self._expect_head()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_BEHIND:
            raise TooManyBehind  # the parser ends with it, as with what is no HTTP
        self._in_head = False
        self._head_bytes = 0
        self._expect_nothing()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()
        if not self._busy:  # nobody wanted its body, and the answer has left before it
            self._expect_nothing()
            self._expect_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._busy:
            return
        if not self._in_head:
            self._timer = self.loop.call_later(DISCARD_SECONDS, self.transport.close)
        elif self._head_bytes:
            self._expect_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(None)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None

    def _watch_writing(self, before: int | None) -> None:
        """Cuts a client that takes nothing of what is written to it, and of what closing waits
        for."""
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self._unsent = None
            self.transport.abort()
            return
        self._unsent = self.loop.call_later(SEND_SECONDS, self._watch_writing, left)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        if cycle.scope["http_version"] == "1.0":
            app = _unchunked(cycle, app)
        cycle.transport = cast(asyncio.Transport, _Gathered(cycle.transport, self.loop))
        scope = cast(dict[str, Any], cycle.scope)
        scope |= {ABORT: self.transport.abort, WHEN_LEFT: self._when_left}
        super()._start_asgi_task(cycle, app)

    def _when_left(self, leave: Callable[[], None]) -> Callable[[], None]:
        """Of the request that is answered."""
        self._leave = leave
        self.flow.resume_reading()  # who does not read hears of no end
        if self._answering is not None and self._answering.disconnected:
            leave()

        def forget() -> None:
            if self._leave is leave:  # and not that of the request behind it
                self._leave = None

        return forget

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            failure.bad_request(
                "This is not a valid HTTP request.",
                code="invalid_http",
                hint=f"Its head may take {MAX_HEAD_BYTES} bytes.",
            )
        )

    def _refuse(self, error: failure.Failure) -> None:
        """An answer to what never became a request, and the end of the connection. Behind a request
        that is being answered only the end."""
        if self.transport.is_closing():
            return
        answering = self._answering
        if answering is not None and not answering.response_complete:
            if self._in_head or self.cycle is not answering:
                answering.keep_alive, self._deaf = False, True
                return
            if answering.response_started:  # of its own body, which nobody reads any more
                self.transport.close()
                return
        headers = {**error.headers(), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body = error.body()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\n%b: %b\r\n\r\n%b"
            % (
                error.status,
                HTTPStatus(error.status).phrase.encode(),
                head.encode("latin-1"),
                len(body),
                request_id.HEADER,
                request_id.new_request_id(),
                body,
            )
        )
        self.transport.close()


def _unchunked(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """HTTP/1.0 has no chunks (RFC 9112, section 6.1): what has no length ends with its connection,
    which uvicorn closes after each answer of that version."""
    cycle.chunked_encoding = False

    async def send(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.body":
            cycle.expected_content_length = len(message.get("body", b""))
        await cycle.send(message)

    async def answer(scope: Scope, receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
        await app(scope, receive, send)

    return answer


class _Gathered:
    """Where one answer is written. Its head waits for what is written in the same turn of the loop:
    each write to a socket costs as much as all that is done for an event of a stream, and wakes the
    client."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._flusher: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        if self._flusher is None:
            self._head, self._flusher = data, self._loop.call_soon(self._flush)
            return
        if self._head is not None:
            self._flusher.cancel()
            data, self._head = self._head + data, None
        self._transport.write(data)

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def raise_file_limit() -> None:
    """As many open files as the system lets this process have: a client may keep a connection."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    most_connections.cache_clear()


@cache
def most_connections() -> int:
    if sys.platform == "win32":
        return MOST_FILES
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_FILES if soft == resource.RLIM_INFINITY else min(soft, MOST_FILES)
    return int(files * SHARE_OF_FILES)
