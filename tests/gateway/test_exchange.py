"""One request to an engine and its answer, against servers that say exactly what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from moestro.gateway import exchange
from moestro.gateway.engine_link import EngineLink
from moestro.gateway.exchange import Exchange, LinkBroken

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/Event-Stream; charset=utf-8\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def link_to(answer: Answer) -> AsyncIterator[EngineLink]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = EngineLink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key")
    try:
        yield link
    finally:
        await link.close()
        server.close()


def saying(*pieces: bytes) -> Answer:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)

    return answer


async def whole(answer: Exchange) -> bytes:
    found = b""
    while piece := await answer.piece():
        found += piece
    return found


@pytest.mark.parametrize(
    "pieces",
    [
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",),
        (CHUNKED[:30], CHUNKED[30:] + b"3\r\na", b"bc\r\n0\r\n", b"\r\n"),
        (HEAD + b"content-length: 3\r\n\r\nab", b"c"),
        (HEAD + b"\r\nab", b"c"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_an_answer_is_the_same_however_it_is_bounded_and_cut(
    pieces: tuple[bytes, ...],
) -> None:
    async with link_to(saying(*pieces)) as link, link.post("/v1/x", b"{}") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        assert await whole(answer) == b"abc"
        assert await answer.piece() == b""


@pytest.mark.parametrize(
    "start", [CHUNKED + b"3\r\nabc\r\n", HEAD + b"content-length: 9\r\n\r\nabc"]
)
async def test_what_came_before_a_break_is_given_first(start: bytes) -> None:
    async with link_to(saying(start)) as link, link.post("/v1/x", b"{}") as answer:
        await asyncio.sleep(0.05)
        assert await answer.piece() == b"abc"
        with pytest.raises(LinkBroken):
            await answer.piece()


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 2", b"what is this?\r\n\r\n", HEAD + b"x: " + b"y" * 100_000]
)
async def test_an_answer_without_a_head_is_a_break(said: bytes) -> None:
    async with link_to(saying(said)) as link:
        with pytest.raises(LinkBroken):
            async with link.post("/v1/x", b"{}"):
                pass


async def test_nobody_listens() -> None:
    async with link_to(saying(b"")) as link:
        gone = EngineLink("http://127.0.0.1:9", "key")
        with pytest.raises(OSError, match="9"):
            async with gone.post("/v1/x", b"{}"):
                pass
        await gone.close()
        await link.close()


async def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readexactly(len(body)))
        writer.write(CHUNKED + b"0\r\n\r\n")
        await writer.drain()

    async with link_to(answer) as link, link.post("/v1/x", body) as found:
        assert await whole(found) == b""
    assert got == [body]


async def test_a_refusal_before_the_body_was_read_is_the_answer() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.2)

    body = b"x" * (64 << 20)
    async with asyncio.timeout(10), link_to(answer) as link, link.post("/v1/x", body) as found:
        assert found.status == 413
        assert await whole(found) == b"no"


async def test_an_answer_that_nobody_reads_holds_its_engine_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "MOST_UNREAD_BYTES", 1000)
    size, sent = 64 << 20, 0

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1 << 20

    async with link_to(answer) as link, link.post("/v1/x", b"{}") as found:
        await asyncio.sleep(0.2)
        assert sent < size // 2
        assert len(await whole(found)) == size


def chunks(words: int) -> list[bytes]:
    return [*(b"1\r\nx\r\n" for _ in range(words)), b"0\r\n\r\n"]


async def test_what_comes_before_the_next_beat_is_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.BEAT_SECONDS", 0.1)
    async with (
        link_to(saying(CHUNKED + b"1\r\nx\r\n", *chunks(8))) as link,
        link.post("/v1/x", b"{}") as answer,
    ):
        assert await answer.piece() == b"x"
        await link.gather(answer)
        assert await answer.piece() == 8 * b"x"
        assert await answer.piece() == b""
        await link.gather(answer)  # nothing is left to wait for


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_end_of_an_answer_is_seen_before_the_bar(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is the end of the engine, whose last words are not lost."""
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_BEATS", 10**9)

    async def told(*said: bytes) -> bytes:
        async with (
            link_to(saying(CHUNKED + b"1\r\nx\r\n", *said)) as link,
            link.post("/v1/x", b"{}") as answer,
            asyncio.timeout(10),
        ):
            body = b""
            while piece := await answer.piece():
                body += piece
                await link.gather(answer)
            return body

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(told(*chunks(3))) == 4 * b"x"
        with pytest.raises(LinkBroken):
            runner.run(told(*chunks(3)[:-1]))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_link_may_be_cut_before_the_beat(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.BEAT_SECONDS", 30.0)

    async def cut() -> None:
        async with link_to(saying(CHUNKED, *chunks(100))) as link:
            closing: asyncio.Task[None] | None = None
            try:
                async with link.post("/v1/x", b"{}") as answer:
                    await answer.piece()
                    closing = asyncio.create_task(link.close())
                    await link.gather(answer)
            except TimeoutError:
                pass
            else:
                pytest.fail("it went on")
            assert closing is not None
            await closing

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(cut())


async def test_a_head_holds_nothing_that_a_path_could_write_into_it() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(CHUNKED + b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = EngineLink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key")
    async with link.post("/a b\r\nx: y?z", b"{}") as answer:
        assert await whole(answer) == b""
    await link.close()
    server.close()
    assert heads[0].startswith(b"POST /a%20b%0D%0Ax:%20y%3Fz HTTP/1.1\r\nhost: 127.0.0.1:")
