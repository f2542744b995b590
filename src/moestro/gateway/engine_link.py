"""The HTTP connection to one engine, and the only holder of its key."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

CONNECT_SECONDS = 10.0
WRITTEN_AT_ONCE_BYTES = 1 << 20


class EngineLink:
    """Belongs to one engine process. Closing it breaks every request that still uses it.

    A connection is used for one request: on loopback a new one costs a fraction of a millisecond,
    while a kept one can be closed by the engine in the moment that it is used again, and a POST
    that fails like that can't be told from one that the engine began to work on.
    """

    def __init__(self, address: str, api_key: str) -> None:
        self._leases: set[asyncio.Timeout] = set()
        self._session = aiohttp.ClientSession(
            base_url=address,
            headers={"authorization": f"Bearer {api_key}", "content-type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept-encoding"),
        )

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request.

        Raises:
            aiohttp.ClientError, OSError: the connection broke, or the link was closed.
        """
        # A large body is written in pieces, so that other requests get their turn in between.
        data = body if len(body) <= WRITTEN_AT_ONCE_BYTES else io.BytesIO(body)
        async with asyncio.timeout(None) as lease:
            self._leases.add(lease)
            try:
                async with self._session.post(path, data=data, allow_redirects=False) as answer:
                    yield answer
            finally:
                self._leases.discard(lease)

    async def close(self) -> None:
        """Ends every request on this link with a TimeoutError, wherever it waits."""
        # A reader of a connection that aiohttp closes from its own side waits for ever.
        now = asyncio.get_running_loop().time()
        for lease in self._leases:
            if not lease.expired():
                lease.reschedule(now)
        await self._session.close()
