"""Answers leave as fast as their client takes them, and hold up nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moestro.gateway.outlet import ClientTooSlow, Outlet


class Client:
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.takes = asyncio.Event()
        self.takes.set()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


async def test_what_was_written_arrives_in_order_and_ends_once() -> None:
    client = Client()
    async with Outlet(client.send) as out:
        out.start(200, [(b"a", b"b")])
        for number in range(100):
            out.write(b"%d," % number)
            if number % 7 == 0:
                await asyncio.sleep(0)
    assert client.messages[0] == {
        "type": "http.response.start", "status": 200, "headers": [(b"a", b"b")],
    }  # fmt: skip
    assert client.body == b"".join(b"%d," % number for number in range(100))
    assert [message["more_body"] for message in client.messages[1:]][-1] is False
    assert sum(message.get("more_body") is False for message in client.messages) == 1


async def test_a_slow_client_does_not_stop_the_writer_until_it_is_far_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.outlet.MOST_BYTES", 1000)
    client = Client()
    client.takes.clear()
    async with Outlet(client.send) as out:
        out.start(200, [])
        async with asyncio.timeout(1):
            for _ in range(10):
                out.write(b"x" * 100)
                await out.room()
        out.write(b"y")
        waiting = asyncio.create_task(out.room())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        client.takes.set()
        await waiting
    assert client.body == b"x" * 1000 + b"y"


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.gateway.outlet.SEND_SECONDS", 0.05)
    client = Client()
    client.takes.clear()

    async def answer() -> None:
        async with Outlet(client.send) as out:
            out.start(200, [])
            out.write(b"x")

    with pytest.raises(ClientTooSlow):
        await answer()


async def test_who_is_cancelled_sends_nothing_more() -> None:
    client = Client()

    async def answer() -> None:
        async with Outlet(client.send) as out:
            out.start(200, [])
            await asyncio.Event().wait()

    task = asyncio.create_task(answer())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert not any(message.get("more_body") is False for message in client.messages)
