"""An engine that computes nothing: a stream of small events, as fast as it is told to be.

    python -m bench.serve.stub [--port 0] [--events 64] [--gap-ms 20]

The first event leaves at once, together with the head of the answer, and one more every gap. It is
an asyncio protocol without a web framework, so that it takes little of a machine that it shares
with what is measured. Under llama-server's router it plays the engine that the router starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from typing import cast

import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"connection: keep-alive\r\n\r\n"
)
READY = 'cmd_child_to_router:state:{"state": "ready", "payload": {}}'
"""What a llama-server tells the router that started it."""


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(delta: dict[str, object], finish: str | None = None) -> bytes:
    """As llama-server writes it."""
    data = {
        "choices": [{"finish_reason": finish, "index": 0, "delta": delta}],
        "created": 1_790_000_000,
        "id": "chatcmpl-3T0Yk1HzBfYc1iQv8bG0nM5sJ2xWqE7u",
        "model": "default",
        "system_fingerprint": "b11549-0000000",
        "object": "chat.completion.chunk",
    }
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


ROLE = event({"role": "assistant", "content": None})
WORD = event({"content": " word"})
END = event({}, "length") + b"data: [DONE]\n\n"


class Stub(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    def __init__(self, events: int, gap_seconds: float) -> None:
        self._events = events
        self._gap = gap_seconds
        self._loop = asyncio.get_running_loop()
        self._in = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no children of it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._in += data
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._in[:end]).lower()
        length = _length(head)
        if len(self._in) < end + 4 + length:
            return
        del self._in[: end + 4 + length]
        if head.startswith(b"post /v1/chat/completions"):
            self._begin()
        else:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
            )

    def _begin(self) -> None:
        self._began = self._loop.time()
        self._sent = 1
        self._transport.write(HEAD + chunked(ROLE + WORD))
        self._timer = self._loop.call_at(self._began + self._gap, self._next)

    def _next(self) -> None:
        self._sent += 1
        if self._sent < self._events:
            self._transport.write(_WORD_CHUNK)
            due = self._began + self._sent * self._gap
            self._timer = self._loop.call_at(due, self._next)
        else:
            self._timer = None
            self._transport.write(_LAST_CHUNKS)


_WORD_CHUNK = chunked(WORD)
_LAST_CHUNKS = chunked(WORD) + chunked(END) + b"0\r\n\r\n"


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def _serve(port: int, events: int, gap_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(events, gap_seconds), "127.0.0.1", port)
    routed = "LLAMA_SERVER_ROUTER_PORT" in os.environ
    if routed:
        print(READY, flush=True)
    else:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print(json.dumps({"url": address}), flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    if routed:  # which says so when it is to end
        loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--events", type=int, default=64)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    options, _ = parser.parse_known_args()  # a router adds flags of llama-server's
    uvloop.run(_serve(options.port, options.events, options.gap_ms / 1000))


if __name__ == "__main__":
    main()
