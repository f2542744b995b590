from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moestro.engine import probe
from moestro.engine.probe import get_json


@asynccontextmanager
async def server(reply: bytes | None) -> AsyncIterator[int]:
    """Answers every connection with these bytes; with None it accepts and says nothing."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if reply is None:
            await over.wait()
        else:
            writer.write(reply)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        over.set()
        listening.close()
        await listening.wait_closed()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}', (200, {"a": 1})),
        (b"HTTP/1.1 503 Loading\r\n\r\nnot json", (503, None)),
        (b"hello\r\n\r\n", (0, None)),
        (b"", (0, None)),
    ],
)
async def test_answers(reply: bytes, expected: tuple[int, object]):
    async with server(reply) as port:
        assert await get_json(port, "/health", "key") == expected


async def test_nobody_listens():
    async with server(b"") as port:
        pass
    assert await get_json(port, "/health", "key") == (0, None)


async def test_who_accepts_and_says_nothing_did_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 0.1)
    async with server(None) as port, asyncio.timeout(10.0):
        assert await get_json(port, "/health", "key") == (0, None)
