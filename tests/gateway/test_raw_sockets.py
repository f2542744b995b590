"""Sockets that say anything: in short what `bench.serve.fuzz` does in full."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time

import pytest
from bench.serve.attacks import HELLO, RAW, mangled, send

from moestro.gateway import http_protocol
from tests.gateway.conftest import Gateway, until


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rsplit(":", 1)[1])


async def works(gateway: Gateway) -> None:
    async with asyncio.timeout(10), gateway.http.post("/v1/chat/completions", data=HELLO) as answer:
        assert answer.status == 200
        await answer.read()


@pytest.mark.parametrize("name", RAW)
async def test_whatever_is_said_has_an_answer_or_an_end(gateway: Gateway, name: str) -> None:
    got = await send("127.0.0.1", port_of(gateway), RAW[name])
    assert got.closed, "it hangs"
    assert got.status is None or got.status < 500
    await works(gateway)
    await until(lambda: len(asyncio.all_tasks()) < 20)


async def test_mangled_requests(gateway: Gateway) -> None:
    dice = random.Random(7)
    names = sorted(set(RAW) - {"a huge body", "a wide array"})
    for _ in range(150):
        got = await send("127.0.0.1", port_of(gateway), mangled(RAW[dice.choice(names)], dice))
        assert got.closed
        assert got.status is None or got.status < 500
    await works(gateway)


async def test_clients_that_leave_in_the_middle(gateway: Gateway) -> None:
    whole = RAW["pipelined"]
    for length in range(1, len(whole), 17):
        await send("127.0.0.1", port_of(gateway), whole[:length], leave_after=0.01)
    await works(gateway)
    await until(lambda: gateway.engine.active == 0 and gateway.service.running == 0)


async def test_slow_heads_are_let_go_and_hold_nobody_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.5)
    silent = [await asyncio.open_connection("127.0.0.1", port_of(gateway)) for _ in range(50)]
    begun = [await asyncio.open_connection("127.0.0.1", port_of(gateway)) for _ in range(50)]
    for _, writer in begun:
        writer.write(b"GET / HTTP/1.1\r\nx-slow: ")
    began = time.monotonic()
    await works(gateway)
    while time.monotonic() - began < 0.4:  # a byte now and then buys no time
        for _, writer in begun:
            writer.write(b"y")
        await asyncio.sleep(0.1)
    async with asyncio.timeout(10):
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
        for reader, writer in begun:
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            writer.close()
    await works(gateway)


def stream(tokens: int, pause: float) -> bytes:
    return chat(stream=True, stub={"tokens": tokens, "pause": pause})


def chat(**fields: object) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    body = json.dumps({"messages": messages, **fields}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


async def test_a_client_of_http_1_0_gets_no_chunks(gateway: Gateway) -> None:
    """As proxies and load generators of that version ask."""
    async with asyncio.timeout(10):
        for request in (
            stream(3, 0.0).replace(b"HTTP/1.1", b"HTTP/1.0"),
            b"GET /v1/models HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            b"HEAD /v1/models HTTP/1.0\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
            writer.write(request)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"transfer-encoding" not in head.lower()
            assert b"connection: close" in head.lower()
            if request.startswith(b"HEAD"):
                assert body == b""
            elif request.startswith(b"GET"):
                assert json.loads(body)["object"] == "list"
            else:
                assert body.startswith(b"data: {")
                assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("behind", [b"\r\n", b"GET / HT", b"\x00\x01\r\n\r\n", b"x" * 100_000])
async def test_what_comes_behind_a_request_does_not_break_into_its_answer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, behind: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(stream(10, 0.05))
    await until(lambda: gateway.engine.active == 1)
    writer.write(behind)
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n0\r\n\r\n")
        rest = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert rest == b"" or rest.startswith(b"HTTP/1.1 408 "), "only after it"
    writer.close()


async def test_a_body_that_is_no_http_is_told_at_once(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    await asyncio.sleep(0.05)  # by now the body is waited for
    writer.write(b"no length\r\n")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_an_answer_with_another_request_behind_it_ends_when_its_client_leaves(
    gateway: Gateway,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(stream(500, 0.02) * 2)
    await reader.readuntil(b"data: ")
    assert gateway.engine.active == 1
    writer.transport.abort()
    await until(lambda: gateway.engine.active == 0 and gateway.service.running == 0)
    assert len(gateway.engine.requests) == 1


async def test_who_leaves_a_request_behind_one_that_was_read_slowly_is_noticed(
    gateway: Gateway,
) -> None:
    size = 15 << 20  # less than may be collected, more than sockets hold
    gateway.engine.script = {"status": 200, "body": "x" * size}
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(chat() + chat(stub={"hang": True}))
    await until(lambda: len(gateway.engine.requests) == 1 and gateway.engine.active == 0)
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(size)
    await until(lambda: gateway.engine.active == 1)
    await asyncio.sleep(0.05)  # the first one has ended in every respect
    writer.transport.abort()
    await until(lambda: gateway.engine.active == 0 and gateway.service.running == 0)


@pytest.mark.parametrize("rest", [b"", b"12345"])
async def test_a_body_that_nobody_wants_does_not_keep_its_connection(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "DISCARD_SECONDS", 0.2)
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    head = b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
    async with asyncio.timeout(10):
        for _ in range(2):
            writer.write(head + b"12345")
            await reader.readuntil(b'"live"}')
            writer.write(rest)
            await asyncio.sleep(0.05)
            if not rest:
                break
        assert await reader.read() == b""
    writer.close()


async def test_a_head_that_follows_an_answer_may_not_be_slow_either(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    await asyncio.sleep(0.5)  # between requests there is time
    writer.write(b"GET /health/live HTTP/1.1\r\n")
    async with asyncio.timeout(10):
        assert b" 408 " in await reader.read()
    writer.close()


async def test_idle_connections_keep_nobody_out_until_there_are_too_many(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "most_connections", lambda: 200)
    idle = [await asyncio.open_connection("127.0.0.1", port_of(gateway)) for _ in range(198)]
    await works(gateway)
    more = [await asyncio.open_connection("127.0.0.1", port_of(gateway)) for _ in range(10)]
    reader, writer = more[-1]
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in answer
    assert b"too_many_connections" in answer
    for _, writer in (*idle, *more):
        writer.close()
    await asyncio.sleep(0.1)
    await works(gateway)


async def test_a_body_that_drips_ends_at_last(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.call.BODY_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n")
    answering = asyncio.create_task(reader.read())
    async with asyncio.timeout(10):
        while not answering.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b" ")
            await asyncio.sleep(0.03)
    assert answering.result().startswith(b"HTTP/1.1 408 ")
    writer.transport.abort()


async def test_thousands_of_requests_on_one_connection_are_not_queued(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    writer.write(5000 * b"GET /health/live HTTP/1.1\r\n\r\n")
    said = b""
    with contextlib.suppress(ConnectionError):  # what was sent and is not read breaks it
        async with asyncio.timeout(10):
            while piece := await reader.read(1 << 16):
                said += piece
    writer.close()
    assert 1 <= said.count(b"HTTP/1.1 200 ") <= http_protocol.MOST_BEHIND + 1
    await works(gateway)


async def test_who_takes_nothing_of_a_whole_answer_is_cut(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "SEND_SECONDS", 0.2)
    words = 4_000_000
    messages = [{"role": "user", "content": "Hi"}]
    asked = json.dumps({"messages": messages, "stub": {"tokens": words}})
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(asked)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway), limit=1)
    writer.write(head + asked.encode())
    await until(lambda: gateway.engine.active == 0 and bool(gateway.engine.requests))
    await asyncio.sleep(1.5)
    got = 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while piece := await reader.read(1 << 16):
                got += len(piece)
    writer.close()
    assert got < words
