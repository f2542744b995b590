"""`/api/events`: what happens, as server-sent events, until the client or the gateway leaves."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moestro.gateway.board import Board
from moestro.gateway.outlet import ClientTooSlow, Outlet, as_long_as_wanted, give_up

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
            try:
                await as_long_as_wanted(_pass_on(events, send, scope["method"] == "HEAD"), scope)
            except ClientTooSlow:
                await give_up(scope)


async def _pass_on(events: asyncio.Queue[bytes | None], send: Send, nothing: bool) -> None:
    async with Outlet(send) as out:
        out.start(200, _HEADERS)
        while not nothing and (event := await events.get()) is not None:
            out.write(event)
            await out.room()
