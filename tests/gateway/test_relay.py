"""What happens between a request and the end of its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from moestro.gateway.relay import MOST_BREAKS, MOST_LOST
from tests.gateway.conftest import Gateway, until
from tests.gateway.stub_engine import WORDS, StubEngine, chunk

CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"


def ask(stream: bool = True, **script: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}]
    return {"messages": messages, "stream": stream, "stub": script}


def events_of(body: bytes) -> list[bytes]:
    assert body.endswith(b"\n\n"), "a stream ends between events"
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


def error_in(event: bytes) -> dict[str, Any]:
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert {"message", "type", "code", "param", "source"} <= set(error)
    return dict(error)


async def test_a_whole_answer_is_passed_on(gateway: Gateway) -> None:
    async with gateway.http.post(CHAT, json=ask(stream=False, tokens=3)) as response:
        answer = await response.json()
    assert response.status == 200
    assert response.content_type == "application/json"
    assert answer["choices"][0]["message"]["content"] == "".join(WORDS[:3])


async def test_the_engine_gets_the_body_byte_by_byte(gateway: Gateway) -> None:
    request = {**ask(stream=False), "grammar": 'root ::= "ü"', "zzz": [1, {"a": None}]}
    async with gateway.http.post(CHAT, data=json.dumps(request)) as response:
        assert response.status == 200
    assert gateway.engine.requests == [request]


async def test_a_stream_gets_a_seed_so_that_it_can_be_told_again(gateway: Gateway) -> None:
    await _read(gateway, ask(tokens=1))
    await _read(gateway, {**ask(tokens=1), "seed": 7})
    seeds = [request["seed"] for request in gateway.engine.requests]
    assert isinstance(seeds[0], int)
    assert seeds[1] == 7


async def test_a_seed_of_null_is_none(gateway: Gateway) -> None:
    """The engine would draw one that nobody knows, and a replay other tokens."""
    await _read(gateway, {**ask(tokens=2, die_after=1), "seed": None, "grammar": "root ::= [a-z]"})
    first, second = (engine.requests[0]["seed"] for engine in gateway.maker.made)
    assert isinstance(first, int)
    assert first == second


@pytest.mark.parametrize("pieces", [None, 1, 7])
async def test_a_stream_is_the_same_however_the_engine_cuts_it(
    gateway: Gateway, pieces: int | None
) -> None:
    async with gateway.http.post(CHAT, json=ask(tokens=6, bytes=pieces)) as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        body = await response.read()
    assert body == b"".join(map(chunk, WORDS)) + DONE


async def test_events_arrive_while_the_engine_still_generates(gateway: Gateway) -> None:
    async with gateway.http.post(CHAT, json=ask(tokens=3, pause=0.2)) as response:
        first = await response.content.readuntil(b"\n\n")
        assert first == chunk(WORDS[0])
        assert gateway.engine.active == 1
        rest = await response.read()
    assert rest == chunk(WORDS[1]) + chunk(WORDS[2]) + DONE


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [(400, 400, "invalid_request"), (500, 500, "invalid_request"), (401, 502, "engine_refused")],
)
async def test_an_engine_s_error_gets_our_envelope(
    gateway: Gateway, status: int, expected: int, code: str
) -> None:
    body = json.dumps({"error": {"message": "no such thing", "type": "invalid_request_error"}})
    for stream in (False, True):
        request = ask(stream=stream, status=status, body=body)
        async with gateway.http.post(CHAT, json=request) as response:
            assert response.status == expected
            assert response.content_type == "application/json"
            error = (await response.json())["error"]
        assert error["code"] == code
        assert "no such thing" in error["message"]
        assert {"param", "source", "type"} <= set(error)


@pytest.mark.parametrize("fast", [True, False])
async def test_fast_streams_are_passed_on_a_few_events_at_a_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr("moestro.gateway.relay.FAST_SECONDS", 30.0 if fast else 0.0)
    monkeypatch.setattr("moestro.gateway.engine_link.BAR_SECONDS", 1.0)
    async with gateway.http.post(CHAT, json=ask(tokens=12)) as response:
        await response.read()  # the first one tells how fast they are
    began, seen, body = time.monotonic(), [], b""
    async with gateway.http.post(CHAT, json=ask(tokens=12, pause=0.03)) as response:
        async for piece in response.content.iter_any():
            seen.append(time.monotonic() - began)
            body += piece
    assert body == b"".join(map(chunk, 2 * WORDS)) + DONE
    assert seen[0] < 1.0, "the first one comes at once"
    assert len(seen) <= 4 if fast else len(seen) >= 8


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_s_error_may_arrive_in_pieces(gateway: Gateway, stream: bool) -> None:
    reason = "no such thing, " * 20
    body = json.dumps({"error": {"message": reason, "type": "invalid_request_error"}})
    async with gateway.http.post(
        CHAT, json=ask(stream=stream, status=400, body=body, bytes=100)
    ) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert (error["message"], error["code"]) == (reason, "invalid_request")


async def test_an_engine_s_error_is_read_up_to_a_bound(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.relay.MAX_ERROR_BYTES", 1000)
    for length, known in ((900, True), (5_000, False)):
        reason = "x" * length
        body = json.dumps({"error": {"message": reason}})
        async with gateway.http.post(CHAT, json=ask(status=500, body=body)) as response:
            assert response.status == 500
            message = (await response.json())["error"]["message"]
        assert (message == reason) is known


async def test_a_whole_answer_that_breaks_is_an_error(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.service.EXIT_REASON_SECONDS", 0.1)
    request = ask(stream=False, half=True, bytes=20)
    async with gateway.http.post(CHAT, json=request) as response:
        assert response.status == 502
        error = (await response.json())["error"]
    assert (error["code"], error["source"]) == ("engine_broke_off", "engine")


async def test_an_error_inside_a_stream_gets_our_envelope_and_ends_it(gateway: Gateway) -> None:
    async with gateway.http.post(CHAT, json=ask(tokens=5, error_after=2)) as response:
        *words, last = events_of(await response.read())
    assert words == [chunk(WORDS[0]), chunk(WORDS[1])]
    error = error_in(last)
    assert (error["message"], error["source"]) == ("out of slots", "engine")


async def test_an_error_inside_an_anthropic_stream_has_the_form_of_its_clients(
    gateway: Gateway,
) -> None:
    request = {**ask(tokens=5, error_after=2, named=True), "max_tokens": 5}
    async with gateway.http.post("/v1/messages", json=request) as response:
        *words, last = events_of(await response.read())
    assert words == [chunk(WORDS[0]), chunk(WORDS[1])]
    assert last.startswith(b"event: error\ndata: ")
    said = json.loads(last.removeprefix(b"event: error\ndata: "))
    assert said["type"] == "error"
    assert said["error"]["message"] == "out of slots"
    assert len(gateway.engine.requests) == 1, "it is no break, so it is not tried again"


async def test_a_text_may_speak_of_the_end_of_streams(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("It ends with ", "data: [DONE]", " they say")
    monkeypatch.setattr("tests.gateway.stub_engine.WORDS", words)
    async with gateway.http.post(CHAT, json=ask(tokens=3)) as response:
        assert await response.read() == b"".join(map(chunk, words)) + DONE


@pytest.mark.parametrize("name", ["n", "n_cmpl"])
async def test_several_answers_at_once_are_told_again_from_the_start(
    gateway: Gateway, name: str
) -> None:
    request = {**ask(tokens=6, die_after=3), name: 2}
    async with gateway.http.post(CHAT, json=request) as response:
        body = await response.read()
    assert body == b"".join(map(chunk, WORDS)) + DONE
    assert gateway.engine.requests[0]["messages"] == request["messages"]


async def test_a_client_that_takes_nothing_is_cut_and_its_answer_not_tried_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("moestro.gateway.outlet.SEND_SECONDS", 0.3)
    monkeypatch.setattr("tests.gateway.stub_engine.WORDS", ("x" * (1 << 20),))
    body = json.dumps(ask(tokens=30, pause=0.01)).encode()
    port = int(gateway.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % CHAT.encode()
    )
    writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
    await until(lambda: gateway.engine.active == 1)
    await until(lambda: gateway.engine.active == 0 and gateway.service.running == 0)
    async with asyncio.timeout(10):
        assert DONE not in await reader.read()
    assert [one.name for one in caplog.records if one.name != "aiohttp.server"] == []
    writer.close()
    assert len(gateway.engine.requests) == 1
    async with gateway.http.post(CHAT, json=ask(stream=False, tokens=0)) as response:
        assert response.status == 200


@pytest.mark.parametrize(("after", "lives"), [(0, 1), (2, 1), (4, 3)])
async def test_a_stream_whose_engine_dies_goes_on_with_the_next_one(
    gateway: Gateway, after: int, lives: int
) -> None:
    request = ask(tokens=6, die_after=after, lives=lives)
    async with gateway.http.post(CHAT, json=request) as response:
        body = await response.read()
    assert body == b"".join(map(chunk, WORDS)) + DONE
    assert len(gateway.maker.made) == 1 + lives
    further = gateway.engine.requests[0]
    sent = "".join(WORDS[:after])
    assert ("continue_final_message" in further) == bool(sent)
    if sent:
        assert further["messages"][-1] == {"role": "assistant", "content": sent}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_dies_before_it_answers_costs_nothing_but_time(
    gateway: Gateway, stream: bool
) -> None:
    answering = asyncio.create_task(_read(gateway, ask(stream, tokens=3, pause=0.3)))
    await until(lambda: gateway.engine.active == 1)
    await gateway.engine.kill()
    body = await answering
    if stream:
        assert body == b"".join(map(chunk, WORDS[:3])) + DONE
    else:
        assert json.loads(body)["choices"][0]["message"]["content"] == "".join(WORDS[:3])


@pytest.mark.parametrize("end", [StubEngine.crash, StubEngine.starve])
async def test_a_request_that_ends_engines_is_tried_alone_and_then_refused(
    gateway: Gateway, end: Callable[[StubEngine], Awaitable[None]]
) -> None:
    """Three engines crash by themselves under it, or for want of memory; the request beside it
    loses nothing."""

    async def poison() -> tuple[int, dict[str, Any]]:
        async with gateway.http.post(CHAT, json=ask(stream=False, hang=True)) as response:
            return response.status, (await response.json())["error"]

    beside = asyncio.create_task(_read(gateway, ask(tokens=6, pause=0.05)))
    poisoned = asyncio.create_task(poison())
    for number in range(3):
        await until(lambda n=number: len(gateway.maker.made) == n + 1)  # type: ignore[misc]
        engine = gateway.maker.made[number]
        await until(lambda e=engine: any(r.get("stub", {}).get("hang") for r in e.requests))  # type: ignore[misc]
        if number == 2:
            assert engine.active == 1, "nobody is beside it now"
        await end(engine)
    status, error = await poisoned
    assert (status, error["code"]) == (500, "request_crashes_engine")
    assert await beside == b"".join(map(chunk, WORDS)) + DONE


async def test_a_request_may_lose_many_engines(gateway: Gateway) -> None:
    body = await _read(gateway, ask(tokens=3, die_after=0, lives=MOST_LOST + 5))
    assert body == b"".join(map(chunk, WORDS[:3])) + DONE
    assert len(gateway.maker.made) == MOST_LOST + 6


async def test_a_request_that_loses_engines_for_too_long_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words between begin the count anew."""
    monkeypatch.setattr("moestro.gateway.relay.MOST_LOST", 3)
    monkeypatch.setattr("moestro.gateway.relay.MOST_LOST_SECONDS", 0.0)
    assert await _read(gateway, ask(tokens=6, die_each=5)) == b"".join(map(chunk, WORDS)) + DONE
    before = len(gateway.maker.made)
    *words, last = events_of(await _read(gateway, ask(tokens=3, die_after=1, lives=1000)))
    assert words == [chunk(WORDS[0])]
    assert error_in(last)["code"] in ("engine_broke_off", "engine_starting")
    await until(lambda: len(gateway.maker.made) == before + 3)


async def test_engines_that_are_slow_to_stop_break_no_stream(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: they broke off because they were told to."""
    monkeypatch.setattr("moestro.gateway.service.EXIT_REASON_SECONDS", 0.05)
    monkeypatch.setattr("moestro.gateway.service.REPLACE_DRAIN_SECONDS", 0.05)
    service, replaced = gateway.service, MOST_BREAKS + 1
    gateway.maker.plans = [{"stop_seconds": 0.5} for _ in range(replaced)]
    await service.replace(because="its ends are slow")
    reading = asyncio.create_task(_read(gateway, ask(tokens=40, pause=0.05)))
    for number in range(replaced):
        await until(lambda: gateway.engine.active == 1)
        await service.replace(because=f"order {number}")
    assert await reading == b"".join(map(chunk, (7 * WORDS)[:40])) + DONE


async def test_a_whole_answer_has_a_bound(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.relay.MAX_ANSWER_BYTES", 1000)
    for length, status in ((999, 200), (1000, 502)):
        request = ask(stream=False, status=200, body="x" * length)
        async with gateway.http.post(CHAT, json=request) as response:
            assert response.status == status
            body = await response.read()
    error = json.loads(body)["error"]
    assert (error["code"], response.headers["x-should-retry"]) == ("answer_too_large", "false")


@pytest.mark.parametrize("how", ["cut_after", "close_after", "stop_after"])
@pytest.mark.parametrize("count", [0, 2])
async def test_no_stream_ends_silently_before_it_is_done(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, how: str, count: int
) -> None:
    monkeypatch.setattr("moestro.gateway.service.EXIT_REASON_SECONDS", 0.1)
    async with gateway.http.post(CHAT, json=ask(True, tokens=5, **{how: count})) as response:
        *words, last = events_of(await response.read())
    # Half an event that the engine had sent is not passed on.
    assert words == [chunk(word) for word in WORDS[:count]]
    assert error_in(last)["code"] == "engine_broke_off"
    async with gateway.http.get("/health") as health:
        assert health.status == 200


async def test_requests_wait_for_the_next_engine_up_to_a_deadline(gateway: Gateway) -> None:
    async def wait(stream: bool) -> tuple[int, dict[str, Any], str | None]:
        async with gateway.http.post(CHAT, json=ask(stream=stream, hang=True)) as response:
            error = (await response.json())["error"]
            return response.status, error, response.headers.get("retry-after")

    gateway.service.queue.wait_seconds = 0.2
    gateway.maker.plans = [{"start_seconds": 60.0}]
    waiting = [asyncio.create_task(wait(index % 2 == 0)) for index in range(6)]
    await until(lambda: gateway.engine.active == 3)
    assert gateway.service.queue.waiting == 3
    await gateway.engine.kill()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*waiting)
    for status, error, retry_after in answers:
        assert (status, error["code"]) == (503, "queue_timeout")
        assert retry_after is not None


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_generation(gateway: Gateway, stream: bool) -> None:
    for request in (ask(stream, hang=True), ask(stream, tokens=10_000, pause=0.01)):
        gateway.engine.cancelled = 0
        timeout = aiohttp.ClientTimeout(total=0.2)
        with pytest.raises(TimeoutError):
            async with gateway.http.post(CHAT, json=request, timeout=timeout) as response:
                await response.read()
        await until(lambda: gateway.engine.active == 0)
        assert gateway.engine.cancelled == 1
    async with gateway.http.post(CHAT, json=ask(tokens=1)) as response:
        assert (await response.read()).endswith(DONE)


async def test_one_client_s_leaving_does_not_touch_another(gateway: Gateway) -> None:
    slow = ask(tokens=20, pause=0.02)
    staying = asyncio.create_task(_read(gateway, slow))
    leaving = asyncio.create_task(_read(gateway, slow))
    await until(lambda: gateway.engine.active == 2)
    leaving.cancel()
    await until(lambda: gateway.engine.active == 1)
    assert (await staying).endswith(DONE)


async def _read(gateway: Gateway, request: dict[str, Any]) -> bytes:
    async with gateway.http.post(CHAT, json=request) as response:
        return await response.read()


async def test_many_streams_at_once_do_not_mix(gateway: Gateway) -> None:
    bodies = await asyncio.gather(
        *(_read(gateway, ask(tokens=count, pause=0.001, bytes=5)) for count in range(1, 21))
    )
    for count, body in enumerate(bodies, start=1):
        words = (WORDS[index % len(WORDS)] for index in range(count))
        assert body == b"".join(map(chunk, words)) + DONE


async def test_a_connection_can_be_used_again(gateway: Gateway) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(gateway.url, connector=connector) as http:
        for request in (ask(tokens=2), ask(stream=False), ask(status=400), ask(tokens=2)):
            async with http.post(CHAT, json=request) as response:
                await response.read()
            async with http.post(CHAT, data=b"{") as response:
                assert response.status == 400
