"""The link alone, and many streams on one that is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from moestro.gateway.engine_link import EngineLink
from moestro.gateway.exchange import LinkBroken
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.stub_engine import KEY, StubEngine, maker_of, stub_request

CHAT = "/v1/chat/completions"


def stream_of(tokens: int, pause: float = 0.0) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    stub = {"tokens": tokens, "pause": pause}
    return json.dumps({"messages": messages, "stream": True, "stub": stub}).encode()


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[StubEngine]:
    running = StubEngine()
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def link(engine: StubEngine) -> AsyncIterator[EngineLink]:
    made = EngineLink(engine.address, KEY)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "path", ["//127.0.0.1:9/steal", "http://127.0.0.1:9/", "@127.0.0.1:9/", "/..//127.0.0.1:9"]
)
async def test_no_path_leads_elsewhere(engine: StubEngine, link: EngineLink, path: str) -> None:
    async with link.post(path, b"{}") as answer:
        assert answer.status == 404


async def test_a_closed_link_takes_no_request(link: EngineLink) -> None:
    await link.close()
    with pytest.raises(LinkBroken):
        async with link.post(CHAT, stream_of(1)):
            pass


async def test_a_reader_that_comes_back_to_a_link_being_cut(link: EngineLink) -> None:
    """It was busy when the link was cut, and asks for more before it could be told."""
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with link.post(CHAT, stream_of(1000, pause=0.05)) as answer:
            await answer.piece()
            reading.set()
            await go_on.wait()
            while await answer.piece():
                pass

    reader = asyncio.create_task(read())
    await reading.wait()
    go_on.set()
    await link.close()
    with pytest.raises((LinkBroken, TimeoutError)):
        await reader


async def test_a_body_whose_connection_was_closed_from_our_side(link: EngineLink) -> None:
    async with link.post(CHAT, stream_of(1000, pause=0.05)) as answer:
        await answer.piece()
        answer.close()
        with pytest.raises(LinkBroken):
            await answer.piece()


async def test_closing_does_not_wait_for_ever(
    link: EngineLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.LEAVE_SECONDS", 0.05)
    holding, enough = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with link.post(CHAT, stream_of(1)):
            holding.set()
            while not enough.is_set():
                try:
                    await enough.wait()
                except asyncio.CancelledError:
                    continue

    stubborn = asyncio.create_task(hold())
    await holding.wait()
    async with asyncio.timeout(10):
        await link.close()
    assert not stubborn.done()
    enough.set()
    await asyncio.wait((stubborn,))


async def test_every_stream_on_a_link_that_is_cut_gets_its_last_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Many streams at full speed, cut at moments that differ from round to round."""
    for turn in range(8):
        service = Service(maker_of(StubEngine()), stub_request(parallel=16))
        async with aiohttp.ClientSession() as http, serving(service, bind(port=0)) as url:
            asked = (http.post(f"{url}{CHAT}", data=stream_of(1_000_000)) for _ in range(16))
            streams = await asyncio.gather(*asked)
            readers = [asyncio.create_task(stream.read()) for stream in streams]
            for _ in range(turn * 3):
                await asyncio.sleep(0)
            async with asyncio.timeout(30):
                await service.stop()
                bodies = await asyncio.gather(*readers)
        for body in bodies:
            *_, last, nothing = body.split(b"\n\n")
            assert nothing == b""
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    # The stub's own server may complain that nobody listens any more.
    assert [one for one in caplog.records if one.name != "aiohttp.server"] == []


class Keeping:
    """An engine that says “ok” to every request on a connection, unless it is told otherwise."""

    def __init__(self) -> None:
        self.connections = self.requests = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
        self.close_before_answer = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                self.requests += 1
                if self.close_before_answer:
                    self.close_before_answer = False
                    break
                writer.write(self.head + b"ok")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def keeping() -> AsyncIterator[tuple[Keeping, EngineLink]]:
    engine = Keeping()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    link = EngineLink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", KEY, 2)
    yield engine, link
    await link.close()
    server.close()


async def ok(link: EngineLink) -> None:
    async with link.post(CHAT, b"{}") as answer:
        assert await answer.rest() == b"ok"


async def test_a_connection_is_used_again(keeping: tuple[Keeping, EngineLink]) -> None:
    engine, link = keeping
    for _ in range(5):
        await ok(link)
    assert (engine.connections, engine.requests) == (1, 5)


async def test_no_more_are_kept_than_allowed(keeping: tuple[Keeping, EngineLink]) -> None:
    engine, link = keeping
    for _ in range(2):
        await asyncio.gather(*(ok(link) for _ in range(6)))
        await asyncio.sleep(0.02)
    assert engine.connections == 6 + 4
    assert sum(not writer.is_closing() for writer in engine.writers) == 2


async def test_a_kept_connection_that_the_engine_closes_costs_another_try(
    keeping: tuple[Keeping, EngineLink],
) -> None:
    engine, link = keeping
    await ok(link)
    engine.close_before_answer = True
    await ok(link)
    assert (engine.connections, engine.requests) == (2, 3)
    engine.writers[-1].close()
    await asyncio.sleep(0.02)
    await ok(link)
    assert engine.connections == 3


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n",
    ],
)
async def test_an_engine_that_will_close_it_is_believed(
    keeping: tuple[Keeping, EngineLink], head: bytes
) -> None:
    engine, link = keeping
    engine.head = head
    await ok(link)
    await ok(link)
    assert engine.connections == 2


async def test_an_answer_that_nobody_reads_to_its_end_is_not_used_again(
    keeping: tuple[Keeping, EngineLink],
) -> None:
    engine, link = keeping
    engine.head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    async with link.post(CHAT, b"{}") as answer:
        assert await answer.piece() == b"ok"
    engine.head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    await ok(link)
    assert engine.connections == 2


async def test_a_connection_whose_request_was_not_read_is_not_used_again() -> None:
    """The engine would take the next request for the rest of that one."""
    connections, over = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nok")
        await over.wait()
        writer.close()
        done.release()

    done = asyncio.Semaphore(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = EngineLink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", KEY, 2)
    async with asyncio.timeout(10):
        for _ in range(2):
            async with link.post(CHAT, b"x" * (64 << 20)) as answer:
                assert (answer.status, await answer.rest()) == (413, b"ok")
    assert connections == 2
    over.set()
    for _ in range(2):
        await done.acquire()
    await link.close()
    server.close()


async def test_kept_connections_are_closed_in_time(
    keeping: tuple[Keeping, EngineLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.KEEP_SECONDS", 0.05)
    engine, link = keeping
    await ok(link)
    await asyncio.sleep(0.2)
    assert engine.writers[0].is_closing()
    await ok(link)
    assert engine.connections == 2
