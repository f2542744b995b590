"""The client that `run` and `chat` use, against our gateway and against strangers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from moestro.client.endpoint import EndpointClient, normal_url
from moestro.errors import GatewayError, UsageError
from tests.gateway.conftest import Gateway, until
from tests.gateway.stub_engine import WORDS

HELLO = [{"role": "user", "content": "Hello"}]


@asynccontextmanager
async def stranger(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def events(*data: object, done: bool = True) -> Callable[[web.Request], Awaitable[web.Response]]:
    lines = [f"data: {json.dumps(entry)}\n\n" for entry in data] + ["data: [DONE]\n\n"] * done

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="".join(lines), content_type="text/event-stream")

    return answer


def delta(**fields: object) -> dict[str, object]:
    return {"model": "m", "choices": [{"delta": fields, "finish_reason": None}]}


async def test_an_answer_comes_in_pieces_and_is_kept(gateway: Gateway) -> None:
    async with EndpointClient(gateway.url) as client:
        options = {"stub": {"tokens": 4}, "temperature": 0}
        async with client.chat(HELLO, model="default", options=options) as stream:
            pieces = [piece.text async for piece in stream]
    assert pieces == list(WORDS[:4])
    assert stream.answer.text == "".join(WORDS[:4])
    (sent,) = gateway.engine.requests
    assert (sent["messages"], sent["model"], sent["temperature"]) == (HELLO, "default", 0)
    assert sent["stream"] is True


ANSWER = (
    delta(role="assistant", content=None),
    delta(reasoning_content="hm"),
    delta(content="yes"),
    {"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
)


async def test_usage_reason_and_rate() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in ANSWER:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(0.01)
        await response.write(b"data: [DONE]\n\n")
        return response

    async with (
        stranger(answer) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        pieces = [piece async for piece in stream]
    assert len(pieces) == 2
    result = stream.answer
    assert (result.text, result.reasoning, result.model) == ("yes", "hm", "m")
    assert result.finish_reason == "stop"
    assert result.usage is not None
    assert result.usage["completion_tokens"] == 2
    timings = result.timings
    assert timings.time_to_first_token_seconds is not None
    assert 0 < timings.time_to_first_token_seconds <= timings.total_seconds
    assert timings.tokens_per_second is not None
    assert timings.tokens_per_second > 0
    assert set(result.to_json()["timings"]) == {
        "time_to_first_token_seconds", "total_seconds", "tokens_per_second",
    }  # fmt: skip


async def test_an_answer_that_came_all_at_once_has_no_rate() -> None:
    async with (
        stranger(events(*ANSWER)) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        assert len([piece async for piece in stream]) == 2
    assert stream.answer.timings.tokens_per_second is None
    assert stream.piece_times[0] == stream.piece_times[1]
    assert stream.ended_at is not None


async def test_tool_calls_come_in_pieces_too() -> None:
    first = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    second = {"index": 0, "function": {"arguments": "{\ud800}"}}
    answer = events(delta(tool_calls=[first]), delta(tool_calls=[second]), delta(tool_calls=None))
    async with (
        stranger(answer) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        assert [piece.call async for piece in stream] == ["f", "{\ufffd}"]
    assert stream.answer.text == ""


async def test_the_key_goes_with_every_request() -> None:
    keys = []

    async def answer(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers.get("Authorization"))
        return web.json_response({"data": []})

    async with stranger(answer) as url:
        for key in ("secret", None):
            async with EndpointClient(url, api_key=key) as client:
                await client.models()
    assert keys == ["Bearer secret", None]


async def test_a_connection_serves_again_after_a_whole_answer() -> None:
    ports = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return await events(delta(content="a"))(request)

    async with stranger(answer) as url, EndpointClient(url) as client:
        for _ in range(3):
            async with client.chat(HELLO) as stream:
                assert [piece.text async for piece in stream] == ["a"]
    assert len(ports) == 1


async def test_a_request_survives_that_every_kept_connection_was_closed() -> None:
    """llama.cpp's server does that after an answer, at times."""
    served: set[object] = set()
    together = asyncio.Barrier(3)

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if request.transport in served:
            request.transport.abort()
        elif len(served) < 3:
            served.add(request.transport)
            await together.wait()
        return await events(delta(content="a"))(request)

    async def ask(client: EndpointClient) -> list[str]:
        async with client.chat(HELLO) as stream:
            return [piece.text async for piece in stream]

    async with stranger(answer) as url, EndpointClient(url) as client:
        assert await asyncio.gather(*(ask(client) for _ in range(3))) == [["a"]] * 3
        assert await ask(client) == ["a"]


async def test_a_refusal_without_end_is_read_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.client.endpoint._MOST_BODY_BYTES", 100_000)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 50_000)

    async with stranger(answer) as url, EndpointClient(url) as client:
        with pytest.raises(GatewayError) as caught:
            async with client.chat(HELLO):
                pass
    assert caught.value.code == "not-an-endpoint"


async def test_what_nobody_counted_is_unknown_and_not_zero() -> None:
    async with (
        stranger(events(delta(content="a"))) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        assert [piece.text async for piece in stream] == ["a"]
    assert stream.answer.usage is None
    assert stream.answer.finish_reason is None
    assert stream.answer.timings.tokens_per_second is None


async def test_leaving_early_ends_the_generation(gateway: Gateway) -> None:
    async with EndpointClient(gateway.url) as client:
        options = {"stub": {"tokens": 10_000, "pause": 0.01}}
        async with client.chat(HELLO, options=options) as stream:
            async for _ in stream:
                break
        assert stream.answer.text == WORDS[0]
        await until(lambda: gateway.engine.active == 0)


async def test_nothing_answers() -> None:
    async with EndpointClient("http://127.0.0.1:9") as client:
        with pytest.raises(GatewayError) as listing:
            await client.models()
        with pytest.raises(GatewayError) as asking:
            async with client.chat(HELLO):
                pass
    for caught in (listing, asking):
        assert caught.value.code == "endpoint-unreachable"
        assert "moestro up" in (caught.value.hint or "")


async def test_a_refusal_is_passed_on_in_its_own_words(gateway: Gateway) -> None:
    async with EndpointClient(gateway.url) as client:
        with pytest.raises(GatewayError, match="does not exist here") as caught:
            async with client.chat(HELLO, model="gpt-4"):
                pass
    assert caught.value.code == "model-not-found"
    assert "stub-model" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"crash_after": 2, "lives": 9}, "request-crashes-engine"),
        ({"cut_after": 2}, "engine-broke-off"),
    ],
)
async def test_an_answer_that_breaks_is_an_error_and_keeps_its_beginning(
    gateway: Gateway, script: dict[str, int], code: str
) -> None:
    async with EndpointClient(gateway.url) as client:
        options = {"stub": {"tokens": 5, **script}}
        async with client.chat(HELLO, options=options) as stream:
            with pytest.raises(GatewayError) as caught:
                async for _ in stream:
                    pass
    assert caught.value.code == code
    assert stream.answer.text == "".join(WORDS[:2])


async def test_a_stream_without_an_end_is_an_error() -> None:
    async with (
        stranger(events(delta(content="a"), done=False)) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        with pytest.raises(GatewayError) as caught:
            async for _ in stream:
                pass
    assert caught.value.code == "endpoint-broke-off"


@pytest.mark.parametrize("body", ["<html>", "[]", '{"data": 5}', '{"data": [5]}', "", "null"])
async def test_what_is_no_endpoint_is_called_so(body: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body)

    async with stranger(answer) as url, EndpointClient(url) as client:
        with pytest.raises(GatewayError) as caught:
            await client.models()
    assert caught.value.code == "not-an-endpoint"


@pytest.mark.parametrize("event", [b"data: {\n\n", b"data: 5\n\n"])
async def test_a_stream_of_nonsense_is_called_so(event: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=event)

    async with (
        stranger(answer) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        with pytest.raises(GatewayError) as caught:
            async for _ in stream:
                pass
    assert caught.value.code == "not-an-endpoint"


@pytest.mark.parametrize(
    "event",
    [
        {"choices": {}},
        {"choices": {"0": 1}},
        {"choices": "abc"},
        {"choices": [5]},
        {"choices": [None]},
        {"choices": [[]]},
        {"choices": [{"delta": "abc"}]},
        {"choices": [{"delta": [1]}]},
        {"choices": [{"delta": {"content": ["a"]}}]},
        {"choices": [{"delta": {"reasoning_content": 5}}]},
        {"choices": [{"delta": {"tool_calls": 5}}]},
        {"choices": [{"delta": {"tool_calls": [5]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": []}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"name": 5}}]}}]},
        {"choices": [], "timings": [5]},
        {"choices": [{"delta": {}, "finish_reason": {"a": 1}}]},
        {"choices": [], "usage": [5]},
        {"choices": [], "model": ["m"]},
    ],
    ids=json.dumps,
)
async def test_events_of_another_shape_are_called_so(event: dict[str, object]) -> None:
    async with (
        stranger(events(event)) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        with pytest.raises(GatewayError) as caught:
            async for _ in stream:
                pass
        assert stream.answer.text == ""
    assert caught.value.code == "not-an-endpoint"


async def test_what_an_event_leaves_out_or_leaves_null_is_no_mistake() -> None:
    nothing = {"model": None, "choices": None, "usage": None, "error": None}
    sparse = {"choices": [{"delta": None, "finish_reason": None}]}
    async with (
        stranger(events(nothing, {}, sparse, delta(content="a"))) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        assert [piece.text async for piece in stream] == ["a"]


async def test_half_a_character_in_an_answer_can_be_printed() -> None:
    async with (
        stranger(events(delta(content="a\ud83e", reasoning_content="\udd99"))) as url,
        EndpointClient(url) as client,
        client.chat(HELLO) as stream,
    ):
        pieces = [piece async for piece in stream]
    assert [(piece.text, piece.reasoning) for piece in pieces] == [("a\ufffd", "\ufffd")]
    assert stream.answer.text.encode()


async def test_a_refusal_without_words() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"detail": "no"}, status=418)

    async with stranger(answer) as url, EndpointClient(url) as client:
        with pytest.raises(GatewayError, match="418"):
            await client.models()


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:8642", "http://127.0.0.1:8642"),
        ("localhost:8642/", "http://localhost:8642"),
        ("https://host/v1", "https://host"),
        ("host/v1/", "http://host"),
        ("http://[::1]:80/base/v1", "http://[::1]:80/base"),
    ],
)
def test_addresses_as_people_type_them(typed: str, url: str) -> None:
    assert normal_url(typed) == url


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ftp://x",
        "http://",
        "http://a:b",
        "http://[::1",
        "x:99999",
        "http://a..b",
        "a..b:80",
        "http://.a",
        f"http://{'x' * 64}",
    ],
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(UsageError):
        normal_url(typed)
