"""`/api/events`: what happens, as server-sent events, until the client or the gateway leaves."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moestro.gateway.board import Board
from moestro.gateway.outlet import Outlet

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    def __init__(self, board: Board) -> None:
        # Like Starlette's own streaming response this one has no body to hand to its parent.
        self.status_code = 200
        self.background = None
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._board.listening() as events:
            work = asyncio.create_task(_pass_on(events, send, scope["method"] == "HEAD"))
            gone = asyncio.create_task(_client_left(receive))
            try:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.wait((work, gone))
        if not work.cancelled():
            work.result()


async def _pass_on(events: asyncio.Queue[bytes | None], send: Send, nothing: bool) -> None:
    async with Outlet(send) as out:
        out.start(200, _HEADERS)
        while not nothing and (event := await events.get()) is not None:
            out.write(event)
            await out.room()


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
