"""The HTTP connection to one engine, and the only holder of its key."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

CONNECT_SECONDS = 10.0
WRITTEN_AT_ONCE_BYTES = 1 << 20

LEAVE_SECONDS = 2.0
"""How long requests may take to let go of a link that was cut; they need a turn of the loop."""


class EngineLink:
    """Belongs to one engine process. Closing it breaks every request that still uses it.

    A connection is used for one request: on loopback a new one costs a fraction of a millisecond,
    while a kept one can be closed by the engine in the moment that it is used again, and a POST
    that fails like that can't be told from one that the engine began to work on.
    """

    def __init__(self, address: str, api_key: str) -> None:
        self._origin = URL(address).origin()
        self._closed = False
        self._leases: set[asyncio.Timeout] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {api_key}", "content-type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept-encoding"),
        )

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. Whatever `path` is, it goes to this engine: the key goes nowhere else.

        Raises:
            aiohttp.ClientError, OSError: the connection broke, or the link was closed.
        """
        # A large body is written in pieces, so that other requests get their turn in between.
        data = body if len(body) <= WRITTEN_AT_ONCE_BYTES else io.BytesIO(body)
        async with self._request("POST", path, data) as answer:
            yield answer

    @asynccontextmanager
    async def get(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A question about the engine itself. Raises like `post`."""
        async with self._request("GET", path, None) as answer:
            yield answer

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, data: bytes | io.BytesIO | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._closed:
            raise aiohttp.ClientConnectionError("The link is closed.")
        url = self._origin.with_path(path)
        async with asyncio.timeout(None) as lease:
            self._lend(lease)
            try:
                try:
                    answer = await self._session.request(
                        method, url, data=data, allow_redirects=False
                    )
                except RuntimeError as error:
                    raise aiohttp.ClientConnectionError(str(error)) from error
                async with answer:
                    yield answer
            finally:
                self._take_back(lease)

    def _lend(self, lease: asyncio.Timeout) -> None:
        self._leases.add(lease)
        self._all_left.clear()

    def _take_back(self, lease: asyncio.Timeout) -> None:
        self._leases.discard(lease)
        if not self._leases:
            self._all_left.set()

    async def close(self) -> None:
        """Ends every request on this link with a TimeoutError, wherever it waits."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for lease in self._leases:
            if not lease.expired():
                lease.reschedule(now)
        # aiohttp never wakes a reader of a connection that it closes from its own side, and meets
        # one that comes back to it with a RuntimeError. So nobody may be reading any more.
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._all_left.wait()
        finally:
            await self._session.close()


async def read_piece(answer: aiohttp.ClientResponse) -> bytes:
    """What has come of the body since the last call, or what comes next; empty at its end.

    Raises:
        aiohttp.ClientError, OSError: the connection broke.
    """
    try:
        return await answer.content.readany()
    except RuntimeError as error:
        # aiohttp's word for a connection that it has closed from its own side.
        raise aiohttp.ClientConnectionError(str(error)) from error
