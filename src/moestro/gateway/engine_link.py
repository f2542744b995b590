"""The HTTP connections to one engine, and the only holder of its key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

from moestro.gateway.exchange import Exchange, LinkBroken

CONNECT_SECONDS = 10.0

LEAVE_SECONDS = 2.0
"""How long requests may take to let go of a link that was cut; they need a turn of the loop."""


class EngineLink:
    """Belongs to one engine process. Closing it breaks every request that still uses it.

    A connection is used for one request: on loopback a new one costs a fraction of a millisecond,
    while a kept one can be closed by the engine in the moment that it is used again, and a POST
    that fails like that can't be told from one that the engine began to work on.
    """

    def __init__(self, address: str, api_key: str) -> None:
        where = urlsplit(address)
        self._host, self._port = where.hostname or "", where.port or 80
        self._closed = False
        self._leases: set[asyncio.Timeout] = set()
        self._open: set[Exchange] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._fields = (
            f"host: {where.netloc}\r\nauthorization: Bearer {api_key}\r\n"
            "content-type: application/json\r\naccept: */*\r\nconnection: close\r\n"
        ).encode()

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Exchange]:
        """One request. Whatever `path` is, it goes to this engine: the key goes nowhere else.

        Raises:
            OSError: the connection broke, or the link was closed.
        """
        async with self._request("POST", path, body) as answer:
            yield answer

    @asynccontextmanager
    async def get(self, path: str) -> AsyncIterator[Exchange]:
        """A question about the engine itself. Raises like `post`."""
        async with self._request("GET", path, b"") as answer:
            yield answer

    @asynccontextmanager
    async def _request(self, method: str, path: str, body: bytes) -> AsyncIterator[Exchange]:
        if self._closed:
            raise LinkBroken("The link is closed.")
        exchange = Exchange(self._lost)
        async with asyncio.timeout(CONNECT_SECONDS) as lease:
            self._lend(lease)
            try:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: exchange, self._host, self._port)
                if exchange.connected:
                    self._open.add(exchange)
                if self._closed:
                    raise LinkBroken("The link is closed.")
                lease.reschedule(None)
                await exchange.send(self._head(method, path, body), body)
                yield exchange
            finally:
                exchange.close()
                self._take_back(lease)

    def _head(self, method: str, path: str, body: bytes) -> bytes:
        target = quote(path if path.startswith("/") else f"/{path}", safe="/:@")
        length = b"content-length: %d\r\n" % len(body)
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
            method.encode(), target.encode(), self._fields, length
        )  # fmt: skip

    def _lend(self, lease: asyncio.Timeout) -> None:
        self._leases.add(lease)
        self._all_left.clear()

    def _take_back(self, lease: asyncio.Timeout) -> None:
        self._leases.discard(lease)
        self._look()

    def _lost(self, exchange: Exchange) -> None:
        self._open.discard(exchange)
        self._look()

    def _look(self) -> None:
        if not self._leases and not self._open:
            self._all_left.set()

    async def close(self) -> None:
        """Ends every request on this link with a TimeoutError, wherever it waits."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for lease in self._leases:
            if not lease.expired():
                lease.reschedule(now)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._all_left.wait()
        finally:
            for exchange in tuple(self._open):
                exchange.close()
