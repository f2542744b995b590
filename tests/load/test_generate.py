"""Loads against endpoints that do what they are told, honest ones and others."""

from __future__ import annotations

import asyncio
import importlib
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from moestro.errors import GatewayError, UsageError
from moestro.load import (
    SCENARIOS,
    Load,
    LoadResult,
    RequestRecord,
    Scenario,
    Session,
    Target,
    Turn,
    calibrate,
    generate,
    random_scenario,
    summarise,
)
from tests.load.scripted import answering, endpoint, send, streaming

SHORT = random_scenario(20, 8)


def conversation(turns: int) -> Scenario:
    def sessions(seed: int, characters_per_token: float):
        number = 0
        while True:
            yield Session(
                tuple(
                    Turn(({"role": "user", "content": f"{number}.{turn}"},), 4)
                    for turn in range(turns)
                )
            )
            number += 1

    return Scenario("talk", "talk", 5, 4, 1, sessions)


async def run(url: str, load: Load, **given: Any) -> LoadResult:
    return await generate(Target(url), load, **given)


# ------------------------------------------------------------------------------- what is recorded


async def test_a_closed_loop_sends_what_was_asked_for_and_counts_it() -> None:
    timings = {"cache_n": 4, "draft_n": 6, "draft_n_accepted": 3}
    seen: list[RequestRecord] = []
    async with endpoint(answering(3, timings=timings)) as place:
        load = Load(SHORT, requests=6, concurrency=2, ignore_eos=True, options={"extra": 1})
        target = Target(place.url, "key", "model-name")
        result = await generate(target, load, on_record=seen.append)
    assert len(place.bodies) == 6
    assert place.most == 2
    assert place.headers[0]["Authorization"] == "Bearer key"
    body = place.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("model-name", 8, 0.0)
    assert (body["ignore_eos"], body["extra"], body["stream"]) == (True, 1, True)
    assert body["stream_options"] == {"include_usage": True}
    assert tuple(seen) == result.records
    for record in result.records:
        assert record.error is None
        assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (10, 3, 4)
        assert (record.drafted, record.accepted, record.finish_reason) == (6, 3, "length")
        assert record.text is None
        times = (record.due, record.sent, *record.piece_times, record.ended)
        assert list(times) == sorted(times)
        assert len(record.piece_times) == 3
    assert result.seconds == max(record.ended for record in result.records)
    assert (result.concurrency, result.rate, result.interrupted, result.lost) == (
        2, None, False, None,
    )  # fmt: skip
    assert len(place.ports) == 2  # a connection serves one request after the other


async def test_times_are_those_of_the_endpoint() -> None:
    async with endpoint(answering(4, pause=0.03)) as place:
        result = await run(place.url, Load(SHORT, requests=1))
    (record,) = result.records
    assert record.ttft is not None
    # Lower bounds only: a busy machine makes everything later, never earlier.
    assert record.ttft >= 0.03
    assert record.piece_times[-1] - record.sent >= 0.12
    assert sum(record.gaps) == pytest.approx(record.piece_times[-1] - record.piece_times[0])
    assert record.latency >= 0.12


async def test_pieces_that_arrive_together_have_one_time() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = await streaming(request)
        event = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
        await response.write(event * 3 + b"data: [DONE]\n\n")
        return response

    async with endpoint(answer) as place:
        (record,) = (await run(place.url, Load(SHORT, requests=1))).records
    assert len(record.piece_times) == 3
    assert record.gaps == (0.0, 0.0)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
async def test_thoughts_are_tokens_too(field: str) -> None:
    async with endpoint(answering(3, field=field)) as place:
        (record,) = (await run(place.url, Load(SHORT, requests=1, keep_text=True))).records
    assert len(record.piece_times) == 3
    assert record.text == (" 0 1 2" if field == "content" else "")


async def test_tool_calls_are_tokens_too() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = await streaming(request)
        for function in ({"name": "f", "arguments": ""}, {"arguments": "{}"}):
            call = {"index": 0, "function": function}
            await send(response, {"choices": [{"delta": {"tool_calls": [call]}}]})
        await response.write(b"data: [DONE]\n\n")
        return response

    async with endpoint(answer) as place:
        (record,) = (await run(place.url, Load(SHORT, requests=1))).records
    assert record.error is None
    assert len(record.piece_times) == 2


async def test_openai_details_of_a_cached_prompt() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    async with endpoint(answering(3, usage=usage, timings={"cache_n": 1})) as place:
        (record,) = (await run(place.url, Load(SHORT, requests=1))).records
    assert record.cached_tokens == 5


# ----------------------------------------------------------------------------------- how it ends


async def test_the_same_requests_whoever_is_faster() -> None:
    sent = []
    for pause in (0.0, 0.002):
        async with endpoint(answering(2, pause=pause)) as place:
            result = await run(place.url, Load(conversation(3), requests=7, concurrency=2))
        assert len(result.records) == 7
        sent.append(sorted(body["messages"][0]["content"] for body in place.bodies))
    assert sent[0] == sent[1] == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "2.0"]


async def test_a_duration_ends_it_and_lets_answers_end() -> None:
    async with endpoint(answering(2, pause=0.02)) as place:
        result = await run(place.url, Load(conversation(100), seconds=0.1, concurrency=2))
    assert result.records
    assert all(record.sent < 0.1 and record.error is None for record in result.records)
    assert len(place.bodies) == len(result.records)


async def test_a_warm_up_is_not_recorded_and_says_other_things() -> None:
    async with endpoint(answering(2)) as place:
        result = await run(place.url, Load(SHORT, requests=2, warmup_requests=2))
    assert len(place.bodies) == 4
    assert len(result.records) == 2
    said = [body["messages"][0]["content"] for body in place.bodies]
    assert len(set(said)) == 4


async def test_a_load_that_is_stopped_keeps_what_was_learned() -> None:
    stop = asyncio.Event()
    answered = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal answered
        answered += 1
        if answered > 3:
            stop.set()
            await asyncio.Event().wait()
        return await answering(2)(request)

    async with endpoint(answer) as place:
        result = await run(place.url, Load(SHORT, requests=100), stop=stop)
    assert result.interrupted
    assert len(result.records) == 3


async def test_a_cancelled_load_leaves_nothing_running() -> None:
    begun = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with endpoint(answer) as place:
        work = asyncio.create_task(run(place.url, Load(SHORT, requests=3)))
        await begun.wait()
        before = asyncio.all_tasks()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        left = {task for task in asyncio.all_tasks() & before if "_Run" in repr(task)}
    assert not left


async def test_output_share_scales_answers() -> None:
    async with endpoint(answering(2)) as place:
        await run(place.url, Load(SHORT, requests=1, output_share=0.5))
        await run(place.url, Load(SHORT, requests=1, output_share=0.001))
    assert [body["max_tokens"] for body in place.bodies] == [4, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"requests": 0},
        {"requests": 1, "rate": 1.0, "concurrency": 1},
        {"seconds": -1.0},
        {"requests": 1, "output_share": 0.0},
        {"requests": 1, "rate": 0.0},
    ],
    ids=repr,
)
def test_loads_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Load(SHORT, **wrong)


# ------------------------------------------------------------------------------------ open loop


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    everybody = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if place.active == 5:
            everybody.set()
        await everybody.wait()  # nobody is answered before all have asked
        return await answering(2)(request)

    async with endpoint(answer) as place:
        load = Load(SHORT, requests=5, rate=200.0, arrivals="constant")
        result = await run(place.url, load)
    assert place.most == 5
    due = sorted(record.due for record in result.records)
    assert [later - earlier for earlier, later in pairwise(due)] == pytest.approx([0.005] * 4)
    assert all(record.sent >= record.due for record in result.records)
    assert (result.rate, result.concurrency) == (200.0, None)


async def test_poisson_arrivals_follow_the_seed() -> None:
    async def due(seed: int) -> list[float]:
        async with endpoint(answering(1)) as place:
            result = await run(place.url, Load(SHORT, seed=seed, requests=6, rate=300.0))
        times = sorted(record.due for record in result.records)
        return [time - times[0] for time in times]

    chance, expected = random.Random(7), [0.0]
    for _ in range(5):
        expected.append(expected[-1] + chance.expovariate(300.0))
    assert await due(7) == pytest.approx(expected)
    assert await due(8) != pytest.approx(expected)


async def test_sessions_of_several_turns_keep_the_mean_rate() -> None:
    async with endpoint(answering(1)) as place:
        load = Load(conversation(2), requests=6, rate=100.0, arrivals="constant")
        result = await run(place.url, load)
    first = sorted(record.due for record in result.records if record.turn == 0)
    assert [time - first[0] for time in first] == pytest.approx([0.0, 0.02, 0.04])
    for record in result.records:
        if record.turn == 1:
            (before,) = (
                one for one in result.records if (one.session, one.turn) == (record.session, 0)
            )
            assert record.due >= before.ended


async def test_what_waits_in_the_client_counts_from_when_it_was_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = importlib.import_module("moestro.load.generate")
    monkeypatch.setattr(module, "most_connections", lambda: 1)
    async with endpoint(answering(2, pause=0.02)) as place:
        result = await run(place.url, Load(SHORT, requests=4, rate=1000.0, arrivals="constant"))
    assert place.most == 1
    last = max(result.records, key=lambda record: record.sent)
    assert last.latency_from_due >= last.latency + 0.1  # three answers of 40 ms were before it
    assert summarise(result).late_seconds >= 0.1


# ------------------------------------------------------------------------------ trouble over there


async def test_nobody_there_is_one_error() -> None:
    with pytest.raises(GatewayError) as caught:
        await run("http://127.0.0.1:9", Load(SHORT, requests=50, concurrency=8))
    assert caught.value.code == "endpoint-unreachable"


async def test_an_endpoint_that_goes_away_ends_the_load() -> None:
    async with endpoint(answering(1)) as place:
        gone = place.url
        stopped: list[RequestRecord] = []
        load = Load(SHORT, requests=500, rate=200.0, arrivals="constant")

        def note(record: RequestRecord) -> None:
            stopped.append(record)
            if len(stopped) == 3:
                asyncio.get_running_loop().create_task(leave.__aexit__(None, None, None))

        leave = endpoint(answering(1))
        other = await leave.__aenter__()
        result = await run(other.url, load, on_record=note)
    assert gone != other.url
    assert result.lost is not None
    assert 3 < len(result.records) < 500
    assert result.records[-1].error_code == "endpoint-unreachable"


async def cut(request: web.Request) -> web.StreamResponse:
    response = await streaming(request)
    await send(response, {"choices": [{"delta": {"content": "a"}}]})
    await response.write(b'data: {"choi')
    assert request.transport is not None
    request.transport.abort()
    return response


async def without_end(request: web.Request) -> web.StreamResponse:
    response = await streaming(request)
    await send(response, {"choices": [{"delta": {"content": "a"}}]})
    return response


async def huge(request: web.Request) -> web.StreamResponse:
    response = await streaming(request)
    for _ in range(80):
        await response.write(b"x" * 65536)
    return response


async def refusing(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "Too busy.", "code": "busy"}}, status=503)


async def endless(request: web.Request) -> web.StreamResponse:
    response = await streaming(request)
    event = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' * 100
    while True:
        await response.write(event)


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def error_event(request: web.Request) -> web.StreamResponse:
    response = await streaming(request)
    await send(response, {"error": {"message": "out of slots", "code": 500}})
    return response


@pytest.mark.parametrize(
    ("answer", "code", "pieces"),
    [
        (cut, "endpoint-broke-off", 1),
        (without_end, "endpoint-broke-off", 1),
        (huge, "endpoint-broke-off", 0),
        (refusing, "busy", 0),
        (endless, "answer-too-long", 1033),  # 8 tokens were asked for
        (silent, "timed-out", 0),
        (error_event, "endpoint-refused", 0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_request_that_fails_is_a_record(answer: Any, code: str, pieces: int) -> None:
    seconds = 0.2 if answer is silent else 60.0
    async with endpoint(answer) as place:
        result = await run(place.url, Load(SHORT, requests=2, request_seconds=seconds))
    assert [record.error_code for record in result.records] == [code, code]
    assert all(record.error for record in result.records)
    assert [len(record.piece_times) for record in result.records] == [pieces, pieces]
    assert result.lost is None
    summary = summarise(result)
    assert (summary.requests, summary.errors) == (0, 2)
    assert summary.ttft is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "10", "completion_tokens": [3]},
        {"prompt_tokens": -1, "completion_tokens": 1e99},
        {"prompt_tokens": True, "completion_tokens": None},
        {"prompt_tokens": 1 << 40, "prompt_tokens_details": {"cached_tokens": "a"}},
        {"prompt_tokens": None, "prompt_tokens_details": 7},
        {"completion_tokens_details": {}},
    ],
    ids=repr,
)
async def test_counts_that_are_none_are_unknown(usage: dict[str, Any]) -> None:
    timings = {"draft_n": 2, "draft_n_accepted": 9, "cache_n": "x"}
    async with endpoint(answering(3, usage=usage, timings=timings)) as place:
        (record,) = (await run(place.url, Load(SHORT, requests=1))).records
    assert record.error is None
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (None, None, None)
    assert (record.drafted, record.accepted) == (None, None)
    assert record.tokens == 3


# ------------------------------------------------------------------------------------ calibrating


async def test_calibrating_fits_prompts_to_the_tokenizer() -> None:
    def counting(characters_per_token: float) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            messages = place.bodies[-1]["messages"]
            characters = sum(len(message["content"]) for message in messages)
            tokens = round(characters / characters_per_token)
            usage = {"prompt_tokens": tokens, "completion_tokens": 1}
            return await answering(1, usage=usage)(request)

        return answer

    for true in (2.5, 6.0):
        async with endpoint(counting(true)) as place:
            ratio = await calibrate(Target(place.url), SCENARIOS["users"])
            assert ratio == pytest.approx(true, rel=0.01)
            assert {body["max_tokens"] for body in place.bodies} == {1}
            load = Load(SCENARIOS["random"], requests=2)
            result = await run(place.url, load, characters_per_token=ratio)
        for record in result.records:
            assert record.prompt_tokens == pytest.approx(512, rel=0.03)


async def test_calibrating_never_sends_more_than_was_meant() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        (message,) = place.bodies[-1]["messages"]
        tokens = len(message["content"]) + 15  # one for each character, and a template's
        sent.append(tokens)
        return await answering(1, usage={"prompt_tokens": tokens})(request)

    sent: list[int] = []
    async with endpoint(answer) as place:
        ratio = await calibrate(Target(place.url), random_scenario(300, 1))
    assert ratio == pytest.approx(0.95, abs=0.02)
    assert len(sent) == 2
    assert max(sent) <= 315


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 0}, {"prompt_tokens": 10**9}])
async def test_calibrating_without_counts_says_so(usage: dict[str, Any]) -> None:
    async with endpoint(answering(1, usage=usage)) as place:
        assert await calibrate(Target(place.url)) is None


async def test_calibrating_passes_refusals_on() -> None:
    async with endpoint(refusing) as place:
        with pytest.raises(GatewayError, match="Too busy"):
            await calibrate(Target(place.url))


# ---------------------------------------------------------------------------------------- targets


def test_a_target_is_normal_and_keeps_its_key_to_itself() -> None:
    target = Target("localhost:1/v1/", "secret")
    assert target.url == "http://localhost:1"
    assert "secret" not in repr(target)
    assert replace(target, model="m").api_key == "secret"
    assert target.is_here
    assert Target("127.0.0.2:80").is_here
    assert Target("http://[::1]:80").is_here
    assert not Target("10.0.0.1").is_here
    assert not Target("example.org").is_here


@pytest.mark.parametrize("key", ["", " ", "a\nb", "kéy", "a\x00"])
def test_keys_that_no_header_carries(key: str) -> None:
    with pytest.raises(UsageError):
        Target("localhost", key)
