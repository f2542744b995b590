"""The HTTP connections to one engine, and the only holder of its key."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote, urlsplit

from moestro.gateway.exchange import Exchange, LinkBroken

CONNECT_SECONDS = 10.0

KEEP_SECONDS = 2.0
"""How long a connection is kept for the next request: less than engines keep theirs (5 s), so that
it is ours to close."""

BAR_SECONDS = 0.03
"""How often the events of fast streams are passed on."""

LEAVE_SECONDS = 2.0
"""How long requests may take to let go of a link that was cut; they need a turn of the loop."""


class EngineLink:
    """Belongs to one engine process. Closing it breaks every request that still uses it.

    A connection is used again: a new one costs a third of a millisecond, as much as all the rest of
    a request. One that the engine closes in the moment that it is used again costs another try, on
    a new one; at worst the engine has begun to write an answer that nobody reads. Kept are no more
    than `most_kept`: an engine with a thread for each connection has as many as it has streams, and
    a kept connection takes one away from those that wait.
    """

    def __init__(self, address: str, api_key: str, most_kept: int = 1) -> None:
        where = urlsplit(address)
        self._host, self._port = where.hostname or "", where.port or 80
        self._closed = False
        self._most_kept = most_kept
        self._kept: list[tuple[float, Exchange]] = []
        """With the moment from which on it was; the newest last."""

        self._sweep: asyncio.TimerHandle | None = None
        self._fast = False
        """Whether the last stream that was heard is."""

        self._next_bar: asyncio.TimerHandle | None = None
        self._gathering: set[Exchange] = set()
        self._leases: set[asyncio.Timeout] = set()
        self._open: set[Exchange] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._fields = (
            f"host: {where.netloc}\r\nauthorization: Bearer {api_key}\r\n"
            "content-type: application/json\r\naccept: */*\r\n"
        ).encode()

    def post(
        self, path: str, body: bytes, *, streams: bool = False
    ) -> AbstractAsyncContextManager[Exchange]:
        """One request. Whatever `path` is, it goes to this engine: the key goes nowhere else. A
        context that is left before the answer is whole ends it, unless no more than its end is
        missing. `streams`: the answer is one of events.

        Raises:
            OSError: the connection broke, or the link was closed.
        """
        return self._request("POST", path, body, streams)

    def get(self, path: str) -> AbstractAsyncContextManager[Exchange]:
        """A question about the engine itself. Raises like `post`."""
        return self._request("GET", path, b"", False)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: bytes, streams: bool
    ) -> AsyncIterator[Exchange]:
        if self._closed:
            raise LinkBroken("The link is closed.")
        head = self._head(method, path, body, last=streams and self._fast)
        exchange: Exchange | None = None
        async with asyncio.timeout(None) as lease:
            self._lend(lease)
            try:
                exchange = await self._asked_again(head, body)
                if exchange is None:
                    exchange = Exchange(self._lost)
                    await self._connect(exchange, lease)
                    await exchange.send(head, body)
                yield exchange
            except BaseException:
                if exchange is not None:
                    exchange.close()
                raise
            finally:
                if exchange is not None:
                    self._gathering.discard(exchange)
                self._take_back(lease)
            self._keep(exchange)

    async def _connect(self, exchange: Exchange, lease: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        lease.reschedule(loop.time() + CONNECT_SECONDS)
        await loop.create_connection(lambda: exchange, self._host, self._port)
        if exchange.connected:
            self._open.add(exchange)
        if self._closed:
            raise LinkBroken("The link is closed.")
        lease.reschedule(None)

    async def _asked_again(self, head: bytes, body: bytes) -> Exchange | None:
        """A kept connection with the head of its next answer, if there is one that still lives."""
        while not self._closed and (exchange := self._one_kept()) is not None:
            try:
                await exchange.send(head, body)
            except LinkBroken:
                continue
            except BaseException:
                exchange.close()
                raise
            return exchange
        return None

    def _one_kept(self) -> Exchange | None:
        for place in reversed(range(len(self._kept))):
            _, exchange = self._kept[place]
            if exchange.free:
                del self._kept[place]
                return exchange
        return None

    def _keep(self, exchange: Exchange) -> None:
        """Also one whose last bytes are on their way: it is `free` when they have come."""
        if self._closed or exchange.broken or self._too_many():
            exchange.close()
            return
        self._kept.append((time.monotonic(), exchange))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_SECONDS, self._close_old)

    def _too_many(self) -> bool:
        if len(self._open) <= self._most_kept:
            return False
        return sum(not exchange.broken for exchange in self._open) > self._most_kept

    def _close_old(self) -> None:
        self._sweep = None
        now = time.monotonic()
        old = [exchange for since, exchange in self._kept if now - since >= KEEP_SECONDS]
        self._kept = self._kept[len(old) :]
        for exchange in old:
            exchange.close()
        if self._kept:
            due = self._kept[0][0] + KEEP_SECONDS - now
            self._sweep = asyncio.get_running_loop().call_later(due, self._close_old)

    def _head(self, method: str, path: str, body: bytes, *, last: bool) -> bytes:
        target = quote(path if path.startswith("/") else f"/{path}", safe="/:@")
        length = b"content-length: %d\r\n" % len(body)
        ends = b"connection: close\r\n" if last else b""
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (
            method.encode(), target.encode(), self._fields, length, ends
        )  # fmt: skip

    def _lend(self, lease: asyncio.Timeout) -> None:
        self._leases.add(lease)
        self._all_left.clear()

    def _take_back(self, lease: asyncio.Timeout) -> None:
        self._leases.discard(lease)
        self._look()

    def _lost(self, exchange: Exchange) -> None:
        self._open.discard(exchange)
        self._kept = [one for one in self._kept if one[1] is not exchange]
        self._look()

    def _look(self) -> None:
        if not self._leases and not self._open:
            self._all_left.set()

    def gather(self, exchange: Exchange, fast: bool) -> None:
        """What comes of a `fast` stream comes with the next bar from now on, in one piece and
        without the loop; all fast streams of an engine go on in the same turn. Its end comes at
        once if the connection ends with it, as that of the next stream will: until then a fast one
        comes as it is written."""
        self._fast = fast
        if fast == (exchange in self._gathering):
            return
        if not exchange.hold_back(fast):
            self._gathering.discard(exchange)
            return
        self._gathering.add(exchange)
        if self._next_bar is None:
            self._next_bar = asyncio.get_running_loop().call_later(BAR_SECONDS, self._bar)

    def _bar(self) -> None:
        self._next_bar = None
        for exchange in tuple(self._gathering):
            exchange.look()
        if self._gathering:
            self._next_bar = asyncio.get_running_loop().call_later(BAR_SECONDS, self._bar)

    async def close(self) -> None:
        """Ends every request on this link with a TimeoutError, wherever it waits."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for _, exchange in self._kept:
            exchange.close()
        self._kept = []
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
