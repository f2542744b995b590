"""One request carried to the engine, and its answer carried back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping

import aiohttp
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moestro.client.sse import DONE, EventSplitter, EventTooLarge, event_data
from moestro.gateway import failure
from moestro.gateway.call import Call
from moestro.gateway.engine_link import read_piece
from moestro.gateway.failure import Failure, RequestFailed
from moestro.gateway.service import Service

MAX_ERROR_BYTES = 1 << 20
EVENT_STREAM = "text/event-stream"

_STREAM_HEADERS = {
    "content-type": f"{EVENT_STREAM}; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would collect the stream otherwise
}
_BROKEN = (aiohttp.ClientError, OSError, EventTooLarge)


class Relay(Response):
    """Asks the engine while it watches whether the client is still there.

    A client that leaves takes its upstream connection with it, which is how the engine learns that
    it can stop generating.
    """

    def __init__(self, service: Service, path: str, call: Call) -> None:
        # Like Starlette's own streaming response this one has no body to hand to its parent.
        self.status_code = 200
        self.background = None
        self._service = service
        self._path = path
        self._call = call
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._answer(send))
        gone = asyncio.create_task(_client_left(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            # Also when this request itself is cancelled: nothing of it may outlive it.
            await asyncio.wait((work, gone))
        if not work.cancelled():
            work.result()

    async def _answer(self, send: Send) -> None:
        try:
            async with self._service.link().post(self._path, self._call.body) as answer:
                failed = answer.status >= 400
                if answer.content_type == EVENT_STREAM and not failed:
                    await self._stream(answer, send)
                    return
                body = await _read(answer, MAX_ERROR_BYTES if failed else None)
        except RequestFailed as refused:
            await self._fail(refused.failure, send)
        except _BROKEN:
            await self._fail(await self._service.why_broken(), send)
        else:
            # The engine has done its part: from here on its end can't cut this answer.
            if failed:
                await self._fail(failure.from_engine(answer.status, body), send)
            else:
                await self._whole(answer.status, body, send)

    async def _whole(self, status: int, body: bytes, send: Send) -> None:
        await self._start(send, status, {"content-type": "application/json"}, len(body))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _stream(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        """Passes events on as they become whole, up to [DONE] or an error event.

        Raises:
            aiohttp.ClientError, OSError, EventTooLarge: the stream ended without either.
        """
        splitter = EventSplitter()
        await self._start(send, answer.status, _STREAM_HEADERS)
        while chunk := await read_piece(answer):
            events = splitter.feed(chunk)
            for index, event in enumerate(events):
                ending = _ending(event)
                if ending is not None:
                    body = b"".join((*events[:index], ending))
                    await send({"type": "http.response.body", "body": body, "more_body": False})
                    return
            if events:
                body = b"".join(events)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        raise aiohttp.ClientPayloadError("The stream ended without its last event.")

    async def _start(
        self, send: Send, status: int, headers: Mapping[str, str], length: int | None = None
    ) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        if length is not None:
            raw.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": status, "headers": raw})
        self._started = True

    async def _fail(self, error: Failure, send: Send) -> None:
        body = error.body()
        if self._started:
            body = error.event()
        else:
            await self._start(send, error.status, error.headers(), len(body))
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _ending(event: bytes) -> bytes | None:
    """What to send as the last event instead of this one; None when the stream goes on."""
    data = event_data(event)
    if data == DONE:
        return event
    if data is None or not data.startswith(b'{"error"'):
        return None
    with contextlib.suppress(ValueError):
        error = json.loads(data)["error"]
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        return failure.from_engine(status, data).event()
    return None


async def _read(answer: aiohttp.ClientResponse, limit_bytes: int | None) -> bytes:
    """The body, or as much of it as the limit allows."""
    body = bytearray()
    while piece := await read_piece(answer):
        body += piece
        if limit_bytes is not None and len(body) >= limit_bytes:
            return bytes(body[:limit_bytes])
    return bytes(body)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
