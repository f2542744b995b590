"""A client of the engine's own `/completion` that disturbs a measurement as little as it can.

It shares two cores with the engine, so while tokens stream it only keeps bytes and times; what they
say is read afterwards.
"""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol
from urllib.parse import urlsplit

_READ_BYTES = 1 << 16


class Endpoint(Protocol):
    """What it takes to ask an engine."""

    @property
    def address(self) -> str: ...

    @property
    def api_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """`token_times` are seconds on the monotonic clock, one for each token of the answer.

    The server holds a token back that ends inside a character, so the last ones may be missing.
    `timings` are the server's own, `settings` what it sampled with.
    """

    asked_at: float
    token_times: tuple[float, ...]
    timings: dict[str, Any]
    settings: dict[str, Any]

    @property
    def prefill_tokens_per_second(self) -> float:
        return float(1e3 * self.timings["prompt_n"] / self.timings["prompt_ms"])

    @property
    def first_token_seconds(self) -> float:
        return self.token_times[0] - self.asked_at


async def complete(
    engine: Endpoint, prompt: Sequence[int], answer_tokens: int, *, cached: bool = False
) -> Completion:
    """Lets `engine` write exactly `answer_tokens` after `prompt`, with the server's sampling. With
    `cached` it may keep what it has of the prompt from another request."""
    body = json.dumps(
        {
            "prompt": list(prompt),
            "n_predict": answer_tokens,
            "ignore_eos": True,
            "cache_prompt": cached,
            "stream": True,
            "return_tokens": True,
        }
    ).encode()
    head = (
        "POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {engine.api_key}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    address = urlsplit(engine.address)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    pieces: list[tuple[float, bytes]] = []
    try:
        asked_at = time.monotonic()
        writer.write(head + body)
        await writer.drain()
        while data := await reader.read(_READ_BYTES):
            pieces.append((time.monotonic(), data))
    finally:
        writer.close()
        await writer.wait_closed()
    return _read(asked_at, pieces, answer_tokens)


def _read(asked_at: float, pieces: list[tuple[float, bytes]], answer_tokens: int) -> Completion:
    whole = b"".join(data for _, data in pieces)
    head, _, body = whole.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise SystemExit(f"The engine refused a request: {whole[-500:].decode(errors='replace')}")
    ends = list(accumulate(len(data) for _, data in pieces))
    times: list[float] = []
    last: dict[str, Any] = {}
    pending = b""
    for end, data in _chunks(body):
        at = pieces[bisect_left(ends, len(head) + 4 + end)][0]
        *events, pending = (pending + data).split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: "):
                continue  # a sign of life during a long prompt
            fields = json.loads(event.removeprefix(b"data: "))
            if fields.get("stop"):
                last = fields
            times.extend([at] * len(fields.get("tokens", ())))
    written = last.get("timings", {}).get("predicted_n")
    if written != answer_tokens:
        raise SystemExit(f"The engine wrote {written} tokens, not {answer_tokens}: {last}")
    return Completion(asked_at, tuple(times or [at]), last["timings"], last["generation_settings"])


def _chunks(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a chunked body: (where the part ends in it, the part)."""
    position = 0
    while True:
        line_end = body.index(b"\r\n", position)
        size = int(body[position:line_end], 16)
        if size == 0:
            return
        begin = line_end + 2
        yield begin + size, body[begin : begin + size]
        position = begin + size + 2
