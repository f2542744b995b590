"""Counts answers by route and status, however they came about."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moestro.gateway.meters import Meters

OTHER = "other"
ROUTE = "moestro.route"
"""Where a request's scope holds the route that it was for."""


class Counted:
    """Around an app with these routes. What a client writes never becomes a name of its own."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute], meters: Meters) -> None:
        self._app = app
        self._meters = meters
        paths = [route.path for route in routes if isinstance(route, Route)]
        self._exact = frozenset(path for path in paths if "{" not in path)
        self._below = tuple((path[: path.index("{")], path) for path in paths if "{" in path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope[ROUTE] = self._route(scope["path"])

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._meters.http[route, message["status"]] += 1
            await send(message)

        await self._app(scope, receive, send_counted)

    def _route(self, path: str) -> str:
        if path in self._exact:
            return path
        return next((route for start, route in self._below if path.startswith(start)), OTHER)
