"""A light load of streams, in a process of its own, that times the first word of each.

    python -m bench.serve.streams '{"url": …, "streams": 64, …}'

The argument is a `Load`, the answer on stdout a `Seen`. Each of the streams asks again as soon as
its answer has ended, over a connection that it keeps, as the official clients do. Their beginnings
are spread over the length of one answer, so that requests arrive staggered and, after that, as many
are in flight as there are streams.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import uvloop

from moestro.tune.disturbance import usage

CONTENT = re.compile(rb'"content": ?"[^"]')
"""A word in an event; an event with the role alone has null or an empty text there."""

LAST = b"\r\n0\r\n\r\n"
"""How an answer in chunks ends."""

LATE_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """`spread_seconds` is over which the streams begin; what is sent before `warm_seconds` is not
    counted, nor what is sent after `seconds` more. With `each`, every stream asks so many times
    instead, and all of it counts. `body` is the request, `watched` are pids by name."""

    url: str
    key: str
    body: dict[str, Any]
    streams: int
    spread_seconds: float
    warm_seconds: float
    seconds: float
    seed: int
    watched: dict[str, list[int]] = field(default_factory=dict)
    each: int | None = None
    least_words: int = 1


@dataclass
class Seen:
    """Seconds, of requests that count. `closed` is how many were sent on a kept connection that was
    being closed, and sent again on a new one. `ended` and `words` are of those that ended while it
    was counted, `cpu` the watched processes' seconds meanwhile, `busy` and `stolen` parts of all
    processors' time, `taken` what other programs and other guests of the host took of it."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    closed: int = 0
    ended: int = 0
    words: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    own_cpu: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0
    taken: float = 0.0


class Stream(asyncio.Protocol):
    """One kept connection. `ask` returns when the answer is whole."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._tail = b""
        self._sent = 0.0
        self.first: float | None = None
        self.kept = False

    async def ask(self, host: str, port: int, request: bytes) -> bytes:
        if self._transport is None or self._transport.is_closing():
            self.kept = False
            await self._loop.create_connection(lambda: self, host, port)
        assert self._transport is not None
        self._pieces, self._tail, self.first = [], b"", None
        self._done = self._loop.create_future()
        self._sent = time.perf_counter()
        self._transport.write(request)
        await asyncio.wait_for(self._done, LATE_SECONDS)
        return b"".join(self._pieces)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no children of it

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        if self.first is None and CONTENT.search(b"".join(self._pieces)):
            self.first = time.perf_counter() - self._sent
        self._tail = (self._tail + data)[-len(LAST) :]
        if self._tail == LAST and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


class Run:
    def __init__(self, load: Load) -> None:
        self._load = load
        where = urlsplit(load.url)
        self._host, self._port = where.hostname or "", where.port or 80
        self._counting = False
        self._over = False
        self._seen = Seen()

    async def __call__(self) -> Seen:
        load = self._load
        dice = random.Random(load.seed)
        begins = [
            (number + dice.random()) * load.spread_seconds / load.streams
            for number in range(load.streams)
        ]
        streams = [
            asyncio.create_task(self._ask(number, begin)) for number, begin in enumerate(begins)
        ]
        await asyncio.sleep(load.warm_seconds)
        pids = [pid for group in load.watched.values() for pid in group]
        before, began = usage([*pids, psutil.Process().pid]), time.perf_counter()
        cpu, own = self._cpu(), psutil.Process().cpu_times()
        self._counting = True
        if load.each is None:
            await asyncio.sleep(load.seconds)
        else:
            await asyncio.gather(*streams)
        self._counting, self._over = False, True
        seen = self._seen
        seen.seconds = time.perf_counter() - began
        seen.cpu = {name: spent - cpu[name] for name, spent in self._cpu().items()}
        now = psutil.Process().cpu_times()
        seen.own_cpu = now.user + now.system - own.user - own.system
        after = usage([*pids, psutil.Process().pid])
        passed = after.passed - before.passed
        if passed > 0:
            seen.busy = (after.spent - before.spent) / passed
            seen.stolen = (after.stolen - before.stolen) / passed
            others = (after.spent - before.spent) - (after.ours - before.ours)
            seen.taken = max(others, 0.0) / passed + seen.stolen
        await asyncio.gather(*streams)
        return seen

    def _cpu(self) -> Mapping[str, float]:
        return {name: sum(_spent(pid) for pid in pids) for name, pids in self._load.watched.items()}

    async def _ask(self, number: int, begin: float) -> None:
        load = self._load
        await asyncio.sleep(begin)
        stream = Stream()
        asked = 0
        while not self._over and (load.each is None or asked < load.each):
            request = self._request(number, asked)
            asked += 1
            counts = self._counting or load.each is not None
            began = time.perf_counter()
            try:
                answer = await stream.ask(self._host, self._port, request)
                if not answer and stream.kept:
                    self._seen.closed += 1
                    began = time.perf_counter()
                    answer = await stream.ask(self._host, self._port, request)
                stream.kept = True
            except (OSError, TimeoutError) as error:
                self._seen.errors.append(f"{type(error).__name__}: {error}")
                stream.close()
                continue
            words = len(CONTENT.findall(answer))
            whole = answer.startswith(b"HTTP/1.1 200") and b'"length"' in answer
            if not whole or stream.first is None or words < load.least_words:
                self._seen.errors.append(answer[:400].decode("utf-8", "replace"))
                continue
            if counts:
                self._seen.first.append(stream.first)
                self._seen.whole.append(time.perf_counter() - began)
            if self._counting:
                self._seen.ended += 1
                self._seen.words += words
        stream.close()

    def _request(self, number: int, asked: int) -> bytes:
        """Every request has words of its own, so that no cache answers it."""
        load = self._load
        text = f"Story {load.seed} {number} {asked}: tell me a short one about a cat and a key."
        body = json.dumps({**load.body, "messages": [{"role": "user", "content": text}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"authorization: Bearer {load.key}\r\ncontent-type: application/json\r\n"
            f"accept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _spent(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    seen = uvloop.run(Run(load)())
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
