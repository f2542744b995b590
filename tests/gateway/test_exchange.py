"""One request to an engine and its answer, against servers that say exactly what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
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


LAST = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
"""Of an answer with which its connection ends."""

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


async def gathered(link: EngineLink) -> list[bytes]:
    """The pieces of an answer whose first one shows that it is fast."""
    pieces = []
    async with asyncio.timeout(10), link.post("/v1/x", b"{}", streams=True) as answer:
        while piece := await answer.piece():
            pieces.append(piece)
            link.gather(answer, fast=True)
    return pieces


@LOOPS
def test_what_comes_before_the_next_bar_is_one_piece(
    loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_SECONDS", 0.1)

    async def told(head: bytes) -> list[bytes]:
        async with link_to(saying(head + b"1\r\nx\r\n", *chunks(40))) as link:
            return await gathered(link)

    with asyncio.Runner(loop_factory=loop) as runner:
        pieces = runner.run(told(LAST))
        assert b"".join(pieces) == 41 * b"x"
        assert len(pieces) < 10
        # Nothing would tell its end before the bar does.
        pieces = runner.run(told(CHUNKED))
        assert b"".join(pieces) == 41 * b"x"
        assert len(pieces) > 20


@LOOPS
def test_the_end_of_an_answer_is_seen_before_the_bar(
    loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is the end of the engine, whose last words are not lost."""
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_SECONDS", 30.0)

    async def told(*said: bytes) -> list[bytes]:
        async with link_to(saying(LAST + b"1\r\nx\r\n", *said)) as link:
            return await gathered(link)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(told(*chunks(3))) == [b"x", 3 * b"x"]
        with pytest.raises(LinkBroken):
            runner.run(told(*chunks(3)[:-1]))


@LOOPS
def test_a_stream_that_slows_down_comes_as_it_is_written(
    loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_SECONDS", 0.05)

    async def told() -> int:
        async with (
            link_to(saying(LAST + b"1\r\nx\r\n", *chunks(40))) as link,
            asyncio.timeout(10),
            link.post("/v1/x", b"{}") as answer,
        ):
            await answer.piece()
            link.gather(answer, fast=True)
            await answer.piece()
            link.gather(answer, fast=False)
            seen = 0
            while await answer.piece():
                link.gather(answer, fast=False)
                seen += 1
            return seen

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(told()) > 15


@LOOPS
def test_more_than_a_bar_holds_is_read_at_once(
    loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_SECONDS", 30.0)
    large = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))

    async def told() -> list[bytes]:
        async with link_to(saying(LAST + b"1\r\nx\r\n", large, b"0\r\n\r\n")) as link:
            return await gathered(link)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert len(b"".join(runner.run(told()))) == 1 + (1 << 20)


async def test_after_a_fast_stream_the_next_one_ends_with_its_connection() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(CHUNKED + b"".join(chunks(2)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = EngineLink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key")
    try:
        for streams, fast in ((True, True), (True, False), (True, True), (False, True)):
            async with link.post("/v1/x", b"{}", streams=streams) as answer:
                await answer.piece()
                link.gather(answer, fast)
                await whole(answer)
    finally:
        await link.close()
        server.close()
    assert [b"connection: close" in head for head in heads] == [False, True, False, False]


@LOOPS
def test_a_link_may_be_cut_before_the_bar(loop: NewLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_SECONDS", 30.0)

    async def cut() -> None:
        async with link_to(saying(LAST, *chunks(100))) as link:
            closing: asyncio.Task[None] | None = None
            try:
                async with link.post("/v1/x", b"{}") as answer:
                    await answer.piece()
                    link.gather(answer, fast=True)
                    closing = asyncio.create_task(link.close())
                    await answer.piece()
            except (TimeoutError, LinkBroken):
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
