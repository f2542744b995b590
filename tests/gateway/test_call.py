from __future__ import annotations

import json
from typing import Any

import pytest

from moestro.gateway.call import (
    CHAT,
    COMPLETION,
    EMBEDDING,
    MESSAGE,
    RESPONSE,
    check_taken,
    parse_call,
)
from moestro.gateway.failure import RequestFailed

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

IMAGE = {"type": "input_image", "image_url": "http://127.0.0.1:1/x.png"}


def chat(**fields: Any) -> bytes:
    return json.dumps({"messages": HELLO, **fields}).encode()


def refusal(body: bytes, fields: Any = CHAT) -> tuple[int, str, str | None]:
    with pytest.raises(RequestFailed) as caught:
        parse_call(body, fields)
    failure = caught.value.failure
    assert failure.source == "request"
    return failure.status, failure.code, failure.param


def test_the_body_stays_as_it_came() -> None:
    body = b'{ "messages":[{"role":"user","content":"\\u00fc"}],"model":"m","stream":true,"x":1}'
    call = parse_call(body, CHAT)
    assert call.body is body
    assert (call.model, call.stream) == ("m", True)


def test_null_means_not_given() -> None:
    names = [name for name in CHAT if name != "messages"]
    call = parse_call(chat(**dict.fromkeys(names)), CHAT)
    assert (call.model, call.stream) == (None, False)


def test_what_clients_really_send_is_taken() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "assistant", "content": "", "tool_calls": None},
    ]
    parse_call(
        chat(
            messages=messages,
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "f"}},
            response_format={"type": "json_object"},
            stop=["a", "b"],
            temperature=0,
            top_p=0.5,
            seed=3,
            logit_bias={"5": 1.5},
            logprobs=True,
            top_logprobs=5,
            grammar='root ::= "a"',
        ),
        CHAT,
    )
    for prompt in ("text", ["a", "b"], [1, 2, 3], [[1, 2], [3]]):
        parse_call(json.dumps({"prompt": prompt, "logprobs": 3}).encode(), COMPLETION)
    parse_call(b'{"input": ["a", "b"]}', EMBEDDING)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"5", b"null", b"\xff\xfe", b'{"messages": [], "temperature": NaN}',
     b'{"messages":[{"role":"user","content":"\xff"}]}', b"{} {}", b'{"temperature": -Infinity}'],
)  # fmt: skip
def test_what_is_not_a_json_object(body: bytes) -> None:
    assert refusal(body) == (400, "invalid_json", None)


@pytest.mark.parametrize(
    ("fields", "name"), [(CHAT, "messages"), (COMPLETION, "prompt"), (EMBEDDING, "input")]
)
def test_a_missing_field_is_named(fields: Any, name: str) -> None:
    assert refusal(b"{}", fields) == (400, "missing_field", name)
    assert refusal(json.dumps({name: None}).encode(), fields) == (400, "missing_field", name)


WRONG: dict[str, list[Any]] = {
    "model": [5, [], {}],
    "stream": ["yes", 1],
    "stream_options": [5, "x"],
    "max_tokens": ["x", 1.5, True],
    "max_completion_tokens": ["x"],
    "n": ["2", 1.5],
    "seed": ["a"],
    "temperature": ["hot", True, [1]],
    "top_p": ["x"],
    "frequency_penalty": ["x"],
    "presence_penalty": [{}],
    "stop": [5, [1], {}],
    "logit_bias": ["x", 5],
    "user": [5],
    "tools": ["x", {}],
    "tool_choice": [5, []],
    "parallel_tool_calls": ["x"],
    "response_format": ["json"],
    "logprobs": ["x", 3],
    "top_logprobs": [-1, 21, "x", 2.5],
    "n_probs": [-1, 21],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_type_is_a_400_that_names_the_field(name: str, value: Any) -> None:
    assert refusal(chat(**{name: value})) == (400, "invalid_type", name)


def test_every_checked_field_has_a_wrong_example() -> None:
    assert set(WRONG) == set(CHAT) - {"messages"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("x", "messages"),
        ([1], "messages[0]"),
        ([{}], "messages[0].role"),
        ([{"role": 5, "content": "x"}], "messages[0].role"),
        ([*HELLO, {"role": "user", "content": 5}], "messages[1].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": 5}]}],
            "messages[0].content[0].text",
        ),
        ([{"role": "assistant", "tool_calls": 5}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], "messages[0].tool_calls"),
    ],
)
def test_a_wrong_message_is_pointed_at(messages: Any, param: str) -> None:
    assert refusal(chat(messages=messages)) == (400, "invalid_type", param)


@pytest.mark.parametrize("tool", [1, {}, {"type": "function"}, {"function": {"name": "f"}},
                                  {"type": "function", "function": {"name": 5}}])  # fmt: skip
def test_a_wrong_tool_is_pointed_at(tool: Any) -> None:
    assert refusal(chat(tools=[TOOL, tool])) == (400, "invalid_type", "tools[1]")


@pytest.mark.parametrize("prompt", [5, [], {}, [1.5], [True], [{}]])
def test_a_wrong_prompt(prompt: Any) -> None:
    body = json.dumps({"prompt": prompt}).encode()
    assert refusal(body, COMPLETION) == (400, "invalid_type", "prompt")


@pytest.mark.parametrize("name", ["echo", "suffix"])
def test_what_the_engine_would_silently_drop_is_refused(name: str) -> None:
    body = json.dumps({"prompt": "x", name: True}).encode()
    assert refusal(body, COMPLETION) == (400, "invalid_type", name)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("depth", [200, 100_000])
def test_nesting_is_bounded(opening: bytes, closing: bytes, depth: int) -> None:
    body = b'{"messages":[{"role":"user","content":"x"}],"deep":%b1%b}' % (
        opening * depth,
        closing * depth,
    )
    assert refusal(body) == (400, "too_deep", None)


def test_a_wide_body_is_not_a_deep_one() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "{[{["}]}] * 1000
    parse_call(chat(messages=messages), CHAT)


PNG = "data:image/png;base64,iVBORw0KGgo="


def media(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, part]}]}


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "HTTPS://a.example/x.png"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": " file:///etc/passwd"}}, "image_url.url"),
        ({"type": "image_url", "image_url": "http://10.0.0.1/"}, "image_url"),
        ({"type": "input_audio", "input_audio": {"data": "http://a"}}, "input_audio.data"),
        ({"type": "video_url", "video_url": {"url": "http://a"}}, "video_url.url"),
        ({"type": "image", "source": {"type": "url", "url": "https://a"}}, "source.url"),
    ],
)
def test_nothing_is_fetched_for_a_client(part: dict[str, Any], param: str) -> None:
    body = json.dumps(media(part)).encode()
    assert refusal(body) == (400, "remote_media", f"messages[0].content[1].{param}")


def test_nothing_is_fetched_from_deeper_places_either() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://a"}}
    result = {"type": "tool_result", "tool_use_id": "x", "content": [image]}
    assert refusal(json.dumps(media(result)).encode(), MESSAGE)[1] == "remote_media"
    item = {"role": "user", "content": [{"type": "input_image", "image_url": "http://a"}]}
    assert refusal(json.dumps({"input": [item]}).encode(), RESPONSE)[1] == "remote_media"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "tool_use", "id": "x", "name": "get", "input": {"url": "https://a.example"}},
        {"type": "text", "text": "https://a.example"},
    ],
)
def test_what_a_request_holds_itself_is_fine(part: dict[str, Any]) -> None:
    parse_call(json.dumps(media(part)).encode(), CHAT)


@pytest.mark.parametrize(
    ("kind", "sense"),
    [("image_url", "image"), ("input_image", "image"), ("input_audio", "audio")],
)
def test_what_a_model_does_not_take_is_refused(kind: str, sense: str) -> None:
    part = {"type": kind, kind: {"url": "data:;base64,AA=="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]
    call = parse_call(chat(messages=messages), CHAT)
    check_taken(call.media, ["text", sense])
    with pytest.raises(RequestFailed) as refused:
        check_taken(call.media, ["text"])
    error = refused.value.failure
    assert (error.status, error.code) == (400, "unsupported_input")
    assert error.param == "messages[0].content[1]"


def test_vectors_are_not_cut() -> None:
    assert refusal(b'{"input": "a", "dimensions": 8}', EMBEDDING)[2] == "dimensions"


@pytest.mark.parametrize("part", [IMAGE, [IMAGE], {"type": "x", "inner": {"more": [IMAGE]}}])
def test_addresses_are_found_wherever_they_lie(part: Any) -> None:
    """An engine would fetch them from where it stands."""
    item = {"type": "function_call_output", "call_id": "c", "output": [part]}
    assert refusal(json.dumps({"input": [item]}).encode(), RESPONSE)[1] == "remote_media"
    messages = [{"role": "user", "content": [{"type": "x", "y": part}]}]
    assert refusal(chat(messages=messages))[1] == "remote_media"


@pytest.mark.parametrize("kind", [[], {}, 1, None])
def test_a_type_that_is_none(kind: Any) -> None:
    parse_call(json.dumps({"input": [{"type": kind}]}).encode(), RESPONSE)
    parse_call(chat(messages=[{"role": "user", "content": "x", "type": kind}]), CHAT)


def test_what_a_model_said_to_a_tool_is_no_image() -> None:
    part = {"type": "tool_use", "id": "x", "name": "show", "input": IMAGE}
    messages = [{"role": "assistant", "content": [part]}]
    parse_call(chat(messages=messages), MESSAGE)


@pytest.mark.parametrize("values", ["[]," * 400_001, "1," * 2_000_001])
def test_a_body_of_too_many_values_is_not_read(values: str) -> None:
    body = b'{"prompt": "x", "y": [' + values.encode() + b"0]}"
    assert refusal(body, COMPLETION)[1] == "too_many_values"


@pytest.mark.parametrize("fields", [CHAT, COMPLETION])
def test_the_engines_own_name_of_log_probabilities_is_bounded_too(fields: Any) -> None:
    body = json.dumps({"messages": HELLO, "prompt": "x", "n_probs": 1000}).encode()
    assert refusal(body, fields)[2] == "n_probs"
