"""The endpoint in front of the real engine, called by the official `openai` client."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import psutil
import pytest

from moestro import demo
from moestro.cli.loop_thread import LoopThread
from moestro.engine import EngineRequest, EngineState
from moestro.engine.llama_cpp.engine import LlamaCppEngine
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from moestro.planning import Settings
from tests.tiny_models import IMAGE_TOKENS, write_tiny, write_tiny_projector

CONTEXT = 4096
"""So much that no generation here comes to its end by itself."""

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@dataclass
class Place:
    url: str
    service: Service
    openai: openai.OpenAI

    @property
    def engine(self) -> LlamaCppEngine:
        """The one that answers now, or did last."""
        assert isinstance(self.service.engine, LlamaCppEngine)
        return self.service.engine

    def kill(self) -> None:
        assert self.engine.pid is not None
        os.kill(self.engine.pid, signal.SIGKILL)

    def restart(self) -> None:
        """Another engine, ready. One that another test ended may still be followed."""
        until(lambda: self.health()[0] == 200, 60)
        before = self.service.restarts
        self.kill()
        until(lambda: self.service.restarts > before and self.health()[0] == 200)

    def cut_short(self) -> float:
        """Answers that ended for want of tokens, by the metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        name = "vllm:request_success_total{"
        (line,) = (one for one in lines if one.startswith(name) and '"length"' in one)
        return float(line.split()[-1])

    def health(self) -> tuple[int, dict[str, Any]]:
        return get(f"{self.url}/health")


def get(url: str, key: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Any]]:
    """Starts gateways on an event loop beside the test, because the client blocks."""
    with LoopThread() as loop:

        def start(
            model: Path,
            name: str,
            *,
            embeddings: bool = False,
            projector: Path | None = None,
            **settings: Any,
        ) -> Any:
            @contextmanager
            def running() -> Iterator[Place]:
                usual: dict[str, Any] = {"context": CONTEXT, "parallel": 2, "threads": 1}
                chosen = Settings(gpu_layers=0, **usual | settings)
                request = EngineRequest(
                    model, name, chosen, projector=projector, embeddings=embeddings
                )
                service = Service(LlamaCppEngine, request)
                client = openai.OpenAI(
                    api_key="a-key-of-the-user", base_url="http://placeholder", max_retries=0
                )
                with (
                    loop.entered(serving(service, bind(port=0))) as url,
                    client.with_options(base_url=f"{url}/v1") as placed,
                ):
                    yield Place(url, service, placed)
                client.close()

            return running()

        yield start


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen35moe", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def place(serve: Callable[..., Any], tiny: Path) -> Iterator[Place]:
    with serve(tiny, "tiny-moe") as running:
        yield running


def until(condition: Callable[[], bool], seconds: float = 30) -> float:
    """Seconds until the condition held."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - begun


def busy_slots(place: Place) -> int:
    status, slots = get(f"{place.engine.address}/slots", place.engine.api_key)
    assert status == 200
    return sum(bool(slot["is_processing"]) for slot in slots)


def test_models(place: Place) -> None:
    (model,) = place.openai.models.list().data
    assert (model.id, model.object, model.owned_by) == ("tiny-moe", "model", "moestro")
    extra = model.model_dump()
    assert extra["context_length"] == CONTEXT
    assert extra["parallel"] == 2
    assert place.openai.models.retrieve("default").id == "tiny-moe"


def test_chat(place: Place) -> None:
    answer = place.openai.chat.completions.create(
        model="tiny-moe", messages=HELLO, max_tokens=6, temperature=0
    )
    assert answer.model == "tiny-moe"
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 6
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


def test_a_streamed_answer_is_the_whole_one_in_pieces(place: Place) -> None:
    settings: dict[str, Any] = {
        "model": "default", "messages": HELLO, "max_tokens": 24, "temperature": 0, "seed": 1,
    }  # fmt: skip
    whole = place.openai.chat.completions.create(**settings).choices[0].message.content
    pieces, usage = [], None
    with place.openai.chat.completions.create(
        **settings, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for event in stream:
            pieces += [choice.delta.content or "" for choice in event.choices]
            usage = event.usage or usage
    assert "".join(pieces) == whole
    assert len([piece for piece in pieces if piece]) > 1
    assert usage is not None


def test_completions_whole_and_streamed(place: Place) -> None:
    settings: dict[str, Any] = {
        "model": "default", "prompt": "Once", "max_tokens": 8, "temperature": 0,
    }  # fmt: skip
    whole = place.openai.completions.create(**settings).choices[0].text
    with place.openai.completions.create(**settings, stream=True) as stream:
        assert "".join(event.choices[0].text for event in stream) == whole


def test_a_grammar_and_other_extras_reach_the_engine(place: Place) -> None:
    answer = place.openai.chat.completions.create(
        model="default", messages=HELLO, max_tokens=8, extra_body={"grammar": 'root ::= "yes"'}
    )
    assert answer.choices[0].message.content == "yes"


def test_errors_raise_the_exceptions_that_clients_expect(place: Place) -> None:
    create: Any = place.openai.chat.completions.create
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="gpt-4", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        create(model="default", messages=HELLO, temperature="hot")
    assert wrong.value.param == "temperature"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as long:
            create(
                model="default",
                messages=[{"role": "user", "content": "x" * 3 * CONTEXT}],
                stream=stream,
            )
        assert long.value.code == "context_length_exceeded"
        assert long.value.body["n_ctx"] == CONTEXT
    with pytest.raises(openai.InternalServerError) as embeddings:
        place.openai.embeddings.create(model="default", input="x")
    assert embeddings.value.status_code == 501
    assert embeddings.value.code == "not_supported"


# What the engine itself answers with 500, or would compute for minutes on.
BAD = [
    {"tools": "x"},
    {"tools": [1]},
    {"messages": [{"role": 5, "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
    {"messages": [{"role": "assistant", "tool_calls": 5}]},
    {"messages": []},
    {"response_format": {"type": "weird"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nope"}}}},
    {"logprobs": True, "top_logprobs": 10**9},
    {"n": 0},
    {"max_tokens": -5},
]


@pytest.mark.parametrize("fields", BAD, ids=lambda fields: "+".join(fields))
def test_a_bad_request_is_a_400_and_the_engine_lives(place: Place, fields: dict[str, Any]) -> None:
    body = {"messages": HELLO, "max_tokens": 1, **fields}
    with pytest.raises(openai.BadRequestError):
        place.openai.post("/chat/completions", body=body, cast_to=object)
    assert place.health()[0] == 200


def cancelled_tasks(place: Place) -> int:
    return sum("cancel task" in line for line in place.engine.log_tail(10_000))


def test_leaving_frees_the_engine_s_slot(serve: Callable[..., Any], tmp_path: Path) -> None:
    """The engine's log tells a generation that was cancelled from one that ran to its end. It looks
    once a second whether who waits for a whole answer has left, so that has to take far longer."""
    endless: dict[str, Any] = {"ignore_eos": True}
    most = 32 * CONTEXT
    model = write_tiny("qwen35moe", tmp_path, more_keys={"qwen35moe.context_length": most})
    with serve(model, "tiny-moe", context=most, parallel=1) as place:
        stream = place.openai.chat.completions.create(
            model="default", messages=HELLO, stream=True, extra_body=endless
        )
        next(iter(stream))
        stream.close()
        until(lambda: cancelled_tasks(place) == 1)
        with pytest.raises(openai.APITimeoutError):
            place.openai.chat.completions.create(
                model="default", messages=HELLO, extra_body=endless, timeout=1
            )
        until(lambda: cancelled_tasks(place) == 2)
        until(lambda: busy_slots(place) == 0)


def test_the_engine_s_own_port_needs_its_key(place: Place) -> None:
    for key in (None, "a-key-of-the-user"):
        assert get(f"{place.engine.address}/v1/models", key)[0] == 401
        assert get(f"{place.engine.address}/slots", key)[0] == 401


def test_kill_9_turns_health_red_and_costs_nobody_an_answer(
    serve: Callable[..., Any],
) -> None:
    # Not the tiny model: its random text is read again in far more tokens than it was written in.
    with serve(demo.model_path(), "demo") as place:
        assert place.health()[0] == 200
        stream = place.openai.chat.completions.create(
            model="default", messages=HELLO, stream=True, max_tokens=300, temperature=0,
            extra_body={"ignore_eos": True}, stream_options={"include_usage": True},
        )  # fmt: skip
        next(iter(stream))
        place.kill()
        assert until(lambda: place.health()[0] == 503) < 2
        usage = None
        for event in stream:
            usage = event.usage or usage
        assert usage is not None
        assert abs(usage.completion_tokens - 300) <= 5  # the text is read again in other tokens
        until(lambda: place.health()[0] == 200)
        assert place.service.restarts == 1
        answer = place.openai.chat.completions.create(model="default", messages=HELLO, max_tokens=4)
        assert answer.choices[0].message.role == "assistant"


def test_leaving_leaves_no_process(serve: Callable[..., Any], tiny: Path) -> None:
    with serve(tiny, "tiny-moe") as place:
        pid = place.engine.pid
        assert pid is not None
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert place.engine.state is EngineState.STOPPED


def test_embeddings_beside_chats(serve: Callable[..., Any], tiny: Path) -> None:
    with serve(tiny, "tiny-moe", embeddings=True) as place:
        texts = ["a cat", "a cat", "the price of coal"]
        found = place.openai.embeddings.create(model="default", input=texts)
        first, same, other = (entry.embedding for entry in found.data)
        assert first == pytest.approx(same, abs=1e-3)
        assert sum(x * x for x in first) == pytest.approx(1, abs=1e-3)
        assert sum(x * y for x, y in zip(first, other, strict=True)) < 0.999
        answer = place.openai.chat.completions.create(
            model="default", messages=HELLO, max_tokens=3, extra_body={"ignore_eos": True}
        )
        assert answer.choices[0].finish_reason == "length"


def test_the_model_s_own_sampling_holds_where_a_request_is_silent(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    keys = {"general.sampling.temp": 0.25, "general.sampling.top_k": 7}
    with serve(write_tiny("qwen35moe", tmp_path, more_keys=keys), "tiny-moe") as place:
        status, found = get(f"{place.engine.address}/props", place.engine.api_key)
        assert status == 200
        params = found["default_generation_settings"]["params"]
        assert params["temperature"] == pytest.approx(0.25)
        assert params["top_k"] == 7


@pytest.fixture(scope="module")
def demo_place(serve: Callable[..., Any]) -> Iterator[Place]:
    with serve(demo.model_path(), "demo") as running:
        yield running


WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


def test_a_tool_call_is_well_formed(demo_place: Place) -> None:
    answer = demo_place.openai.chat.completions.create(
        model="demo", messages=ASKED, tools=WEATHER, temperature=0, max_tokens=64
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert list(arguments) == ["city"]
    assert isinstance(arguments["city"], str)


def test_the_demo_model_calls_a_tool_and_uses_its_result(demo_place: Place) -> None:
    create = demo_place.openai.chat.completions.create
    messages: list[Any] = list(ASKED)
    first = create(model="demo", messages=messages, tools=WEATHER, temperature=0, max_tokens=64)
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = json.dumps({"sky": "sunny", "degrees": 21})
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    last = create(model="demo", messages=messages, tools=WEATHER, temperature=0, max_tokens=64)
    assert "sunny" in (last.choices[0].message.content or "")


def test_the_demo_model_streams_a_tool_call(demo_place: Place) -> None:
    name, arguments = "", ""
    with demo_place.openai.chat.completions.create(
        model="demo",
        messages=ASKED,
        tools=WEATHER,
        temperature=0,
        max_tokens=64,
        stream=True,
    ) as stream:
        for event in stream:
            for choice in event.choices:
                for call in choice.delta.tool_calls or []:
                    assert call.function is not None
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert list(json.loads(arguments)) == ["city"]


async def test_the_asynchronous_client_works_too(place: Place) -> None:
    async with openai.AsyncOpenAI(api_key="x", base_url=f"{place.url}/v1") as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="default", messages=HELLO, max_tokens=4)
                for _ in range(4)
            )
        )
    assert all(answer.usage and answer.usage.completion_tokens >= 1 for answer in answers)


STORY: list[Any] = [{"role": "user", "content": "Tell me a short story."}]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "city": {"type": "string"}},
            "required": ["name", "city"],
        },
    },
}
STREAMS: dict[str, dict[str, Any]] = {
    "chat": {"messages": STORY, "max_tokens": 80},
    "schema": {"messages": STORY, "max_tokens": 80, "response_format": SCHEMA},
    "tool": {"messages": ASKED, "max_tokens": 64, "tools": WEATHER},
    "logprobs": {"messages": STORY, "max_tokens": 60, "logprobs": True, "top_logprobs": 2},
    "several": {"messages": STORY, "max_tokens": 30, "n": 2},
    "grammar": {"messages": STORY, "max_tokens": 40, "extra_body": {"grammar": "root ::= [a-z ]+"}},
}


def told(place: Place, asked: dict[str, Any], kill_after: int | None) -> tuple[Any, ...]:
    """What a client has in the end: texts, calls, finish reasons and tokens; killed or not."""
    texts: dict[int, str] = {}
    calls, finished, probabilities, usage, seen = "", [], 0, None, 0
    options = {"model": "demo", "temperature": 0, "stream_options": {"include_usage": True}}
    before = place.service.restarts
    with place.openai.chat.completions.create(**{**options, **asked}, stream=True) as stream:
        ids = set()
        for event in stream:
            ids.add(event.id)
            usage = event.usage or usage
            for choice in event.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                probabilities += len(choice.logprobs.content or ()) if choice.logprobs else 0
                finished += [choice.finish_reason] if choice.finish_reason else []
                for call in choice.delta.tool_calls or ():
                    assert call.function is not None
                    calls += (call.function.name or "") + (call.function.arguments or "")
            seen += 1
            if seen == kill_after:
                place.kill()
                until(lambda: place.service.restarts > before)
    assert len(ids) == 1
    assert usage is not None
    return texts, calls, finished, probabilities, (usage.prompt_tokens, usage.completion_tokens)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_through_a_kill_is_the_stream_without_it(demo_place: Place, kind: str) -> None:
    """At temperature 0. Near-ties may fall otherwise: once in these is allowed."""
    plain = told(demo_place, STREAMS[kind], None)
    same = [told(demo_place, STREAMS[kind], after) == plain for after in (1, 4, 9)]
    assert sum(same) >= 2


def test_anthropic_s_client_works(demo_place: Place) -> None:
    with anthropic.Anthropic(api_key="x", base_url=demo_place.url, max_retries=0) as client:
        asked: dict[str, Any] = {
            "model": "default", "max_tokens": 60, "messages": STORY,
            "extra_body": {"temperature": 0},
        }  # fmt: skip
        whole = client.messages.create(**asked)
        (block,) = whole.content
        assert block.type == "text"
        count = client.messages.count_tokens(model="default", messages=STORY)
        assert count.input_tokens == whole.usage.input_tokens

        def streamed(kill_after: int | None) -> tuple[str, str | None, int, int]:
            before, seen = demo_place.service.restarts, 0
            with client.messages.stream(**asked) as stream:
                for _ in stream.text_stream:
                    seen += 1
                    if seen == kill_after:
                        demo_place.kill()
                        until(lambda: demo_place.service.restarts > before)
                final = stream.get_final_message()
            (said,) = final.content
            assert said.type == "text"
            return said.text, final.stop_reason, final.usage.output_tokens, len(final.content)

        plain = streamed(None)
        assert plain[0] == block.text
        assert sum(streamed(after) == plain for after in (1, 5, 20)) >= 2


def test_responses_whole_streamed_and_killed(demo_place: Place) -> None:
    asked: dict[str, Any] = {
        "model": "default", "input": "Tell me a short story.", "max_output_tokens": 60,
        "temperature": 0,
    }  # fmt: skip
    create = demo_place.openai.responses.create
    whole = create(**asked)

    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.tools == []

    short = {**asked, "input": "What is 2 + 3?"}
    with demo_place.openai.responses.stream(**short) as helped:
        events = list(helped)
        final = helped.get_final_response()
    assert final.status == "completed"
    assert final.output_text == create(**short).output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots[-1] == final.output_text

    def streamed(kill_after: int | None) -> tuple[str, str, Any]:
        before, seen, text, last = demo_place.service.restarts, 0, "", None
        with create(**asked, stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    text += event.delta
                    seen += 1
                    if seen == kill_after:
                        demo_place.kill()
                        until(lambda: demo_place.service.restarts > before)
                last = event
        assert last is not None
        assert last.type == "response.incomplete"
        usage = last.response.usage
        assert usage is not None
        return text, last.response.output_text, (usage.input_tokens, usage.output_tokens)

    cut = demo_place.cut_short()
    plain = streamed(None)
    assert demo_place.cut_short() == cut + 1
    assert plain[0] == plain[1] == whole.output_text
    assert sum(streamed(after) == plain for after in (1, 5, 20)) >= 2


def test_an_engine_that_hangs_is_killed_and_costs_nobody_an_answer(
    demo_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"messages": STORY, "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    monkeypatch.setattr("moestro.gateway.pulse.EVERY_SECONDS", 0.2)
    monkeypatch.setattr("moestro.gateway.pulse.SILENT_SECONDS", 5.0)
    demo_place.restart()  # the watch over the next one goes by these numbers

    def stop(place: Place) -> None:
        assert place.engine.pid is not None
        os.kill(place.engine.pid, signal.SIGSTOP)

    monkeypatch.setattr(Place, "kill", stop)
    _, _, finished, _, (_, written) = told(demo_place, long, 4)
    assert finished == ["length"]
    assert abs(written - 2000) <= 20  # the text is read again in other tokens
    assert any("hung" in note.text for note in demo_place.service.notes)


def test_an_engine_that_is_slow_is_left_alone(
    demo_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers between two steps, whether or not a stream has anything to say."""
    monkeypatch.setattr("moestro.gateway.pulse.EVERY_SECONDS", 0.05)
    monkeypatch.setattr("moestro.gateway.pulse.SILENT_SECONDS", 5.0)
    demo_place.restart()
    before = demo_place.service.restarts
    told(demo_place, {"messages": STORY, "max_tokens": 3000}, None)
    assert demo_place.service.restarts == before


def picture(red: int, green: int, blue: int, size: int = 20) -> str:
    """A PNG of one colour, base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    rows = (b"\0" + bytes((red, green, blue)) * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


RED, BLUE = picture(255, 0, 0), picture(0, 0, 255)


def asks_of(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content: list[Any] = [{"type": "text", "text": "What is this?"}, *parts]
    return {"model": "default", "messages": [{"role": "user", "content": content}], "max_tokens": 8}


@pytest.fixture(scope="module")
def seeing(
    serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, int]]:
    """The demo model with a projector, and the tokens of its question without an image."""
    projector = write_tiny_projector(tmp_path_factory.mktemp("seeing"), hidden=256)
    with serve(demo.model_path(), "eyes", projector=projector) as place:
        answer = place.openai.chat.completions.create(**asks_of())
        assert answer.usage is not None
        yield place, answer.usage.prompt_tokens


def test_images_are_looked_at(seeing: tuple[Place, int]) -> None:
    place, without = seeing
    (model,) = place.openai.models.list().data
    assert model.model_dump()["input_modalities"][:2] == ["text", "image"]

    def seen(*images: str) -> tuple[int, list[float]]:
        urls = [f"data:image/png;base64,{image}" for image in images]
        more = {"ignore_eos": True, "cache_prompt": False}
        answer = place.openai.chat.completions.create(
            **asks_of(*urls), temperature=0, logprobs=True, extra_body=more
        )
        assert answer.usage is not None
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        return answer.usage.prompt_tokens, [one.logprob for one in logprobs.content or ()]

    red, blue, again = seen(RED), seen(BLUE), seen(RED)
    assert red == again
    assert red[1] != blue[1]
    each = red[0] - without
    assert each >= IMAGE_TOKENS, "with words around it, in a vocabulary of bytes"
    assert seen(RED, BLUE)[0] - without == 2 * each


def test_an_image_through_a_kill(seeing: tuple[Place, int]) -> None:
    place, _ = seeing
    for shade in range(8):  # whose answer is longer than where it is cut
        image = picture(32 * shade, 0, 255 - 32 * shade)
        asked = {**asks_of(f"data:image/png;base64,{image}"), "max_tokens": 60}
        plain = told(place, asked, None)
        if plain[-1][1] > 8:
            break
    same = [told(place, asked, after) == plain for after in (1, 4, 7)]
    assert sum(same) >= 2


def test_an_image_in_anthropic_s_form(seeing: tuple[Place, int]) -> None:
    place, _ = seeing
    source = {"type": "base64", "media_type": "image/png", "data": RED}
    content: list[Any] = [{"type": "image", "source": source}, {"type": "text", "text": "This?"}]
    with anthropic.Anthropic(api_key="x", base_url=place.url, max_retries=0) as client:
        asked: dict[str, Any] = {"model": "default", "max_tokens": 4}
        answer = client.messages.create(**asked, messages=[{"role": "user", "content": content}])
        bare = client.messages.create(**asked, messages=[{"role": "user", "content": content[1:]}])
    assert answer.usage.input_tokens - bare.usage.input_tokens >= IMAGE_TOKENS


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA",
    f"data:image/png;base64,{RED[:60]}", "data:image/png;base64,%%%", "data:image/png;base64,",
])  # fmt: skip
def test_an_image_that_is_none(seeing: tuple[Place, int], url: str) -> None:
    place, _ = seeing
    pid = place.engine.pid
    with pytest.raises(openai.BadRequestError) as refused:
        place.openai.chat.completions.create(**asks_of(url))
    error: Any = refused.value.body
    assert error["message"]
    assert "Traceback" not in error["message"]
    assert place.engine.pid == pid
    assert place.health()[0] == 200


def test_an_image_for_a_model_that_sees_none(place: Place) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        place.openai.chat.completions.create(**asks_of(f"data:image/png;base64,{RED}"))
    error: Any = refused.value.body
    assert "image" in error["message"] or "mmproj" in error["message"], error
