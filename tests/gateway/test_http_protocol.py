"""How many writes an answer takes: each wakes the client, and costs a system call."""

from __future__ import annotations

import asyncio

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moestro.gateway.http_protocol import _Gathered
from tests.gateway.conftest import Gateway


class Socket:
    """A transport that remembers its writes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_a_head_goes_with_what_follows_at_once() -> None:
    socket = Socket()
    gathered = _Gathered(socket, asyncio.get_running_loop())  # type: ignore[arg-type]
    gathered.write(b"head ")
    gathered.write(b"body")
    gathered.write(b" more")
    await asyncio.sleep(0.01)
    assert socket.written == [b"head body", b" more"]
    assert not gathered.is_closing()


async def test_a_head_alone_leaves_in_the_next_turn_and_before_the_end() -> None:
    waits, ends = Socket(), Socket()
    gathered = _Gathered(waits, asyncio.get_running_loop())  # type: ignore[arg-type]
    gathered.write(b"head")
    await asyncio.sleep(0.01)
    assert waits.written == [b"head"]
    gathered.write(b"body")
    assert waits.written == [b"head", b"body"]
    gathered = _Gathered(ends, asyncio.get_running_loop())  # type: ignore[arg-type]
    gathered.write(b"head")
    gathered.close()
    await asyncio.sleep(0.01)
    assert ends.written == [b"head"]
    assert ends.closed


async def test_every_answer_of_a_connection_is_gathered(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[type] = []
    start = HttpToolsProtocol._start_asgi_task

    def spy(self: HttpToolsProtocol, cycle: object, app: object) -> None:
        begun.append(type(cycle.transport))  # type: ignore[attr-defined]
        start(self, cycle, app)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpToolsProtocol, "_start_asgi_task", spy)
    for _ in range(3):
        async with gateway.http.get("/health/live") as answer:
            assert (await answer.json())["status"] == "live"
    assert begun == [_Gathered] * 3
