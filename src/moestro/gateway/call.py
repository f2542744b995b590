"""A client's request: read within bounds, checked, and otherwise left as it came.

Only what OpenAI defines is checked here, so that a wrong type is a clear 400 that names the field
whatever the engine would make of it. Fields that we do not know belong to the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request

from moestro.gateway import failure
from moestro.gateway.begun import Begun
from moestro.gateway.defaults import (
    BODY_IDLE_SECONDS,
    BODY_SECONDS,
    DISCARD_SECONDS,
    MAX_BODY_BYTES,
    MAX_JSON_DEPTH,
    MOST_CONTAINERS,
    MOST_VALUES,
)
from moestro.gateway.failure import RequestFailed
from moestro.gateway.held import Share


class Check(NamedTuple):
    """Of one field: what it has to be in words, whether a value is that, and the same as JSON
    schema, which may be stricter where the rest is checked elsewhere."""

    expected: str
    fits: Callable[[Any], bool]
    schema: Mapping[str, Any]


# Beyond its limit a body is thrown away, not kept, so that the client can finish sending and
# then read our answer instead of a connection reset.
_DISCARD_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Call:
    """`body` is what the client sent, byte by byte; `data` is what it says. `media` are the images,
    sounds and films in it: what each is, and its place."""

    body: bytes
    data: Mapping[str, Any]
    model: str | None
    stream: bool
    media: Sequence[tuple[str, str]] = ()


def _is_integer(value: Any) -> bool:
    """3.0 is one, too, as in JSON schema."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_strings(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    )


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, str | list) or _is_integer(part) for part in value)
    )


_MESSAGES_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string"},
            "content": {
                "anyOf": [
                    {"type": ["string", "null"]},
                    {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
                ]
            },
            "tool_calls": {
                "type": ["array", "null"],
                "items": {"$ref": "#/components/schemas/Function"},
            },
        },
    },
}
_FUNCTIONS_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "items": {"$ref": "#/components/schemas/Function"},
}
_STRINGS_SCHEMA: Mapping[str, Any] = {
    "type": ["string", "array"],
    "items": {"type": "string"},
}
_PROMPT_SCHEMA: Mapping[str, Any] = {
    "type": ["string", "array"],
    "minItems": 1,
    "items": {"type": ["string", "array", "integer"]},
}


def _one_of(*types: str) -> Mapping[str, Any]:
    return {"type": list(types)}


STRING = Check("a string", lambda value: isinstance(value, str), _one_of("string"))
BOOLEAN = Check("true or false", lambda value: isinstance(value, bool), _one_of("boolean"))
INTEGER = Check("an integer", _is_integer, _one_of("integer"))
NUMBER = Check("a number", _is_number, _one_of("number"))
OBJECT = Check("an object", lambda value: isinstance(value, dict), _one_of("object"))
ARRAY = Check("an array", lambda value: isinstance(value, list), _one_of("array"))
MESSAGES = ARRAY._replace(schema=_MESSAGES_SCHEMA)
FUNCTIONS = ARRAY._replace(schema=_FUNCTIONS_SCHEMA)
STRINGS = Check("a string or an array of strings", _is_strings, _STRINGS_SCHEMA)
STRING_OR_OBJECT = Check(
    "a string or an object",
    lambda value: isinstance(value, str | dict),
    _one_of("string", "object"),
)
STRING_OR_ARRAY = Check(
    "a string or an array",
    lambda value: isinstance(value, str | list),
    _one_of("string", "array"),
)
BIAS = Check("an object", lambda value: isinstance(value, dict | list), _one_of("object", "array"))
PROMPT = Check("a string, an array of strings or an array of tokens", _is_prompt, _PROMPT_SCHEMA)
TOP_LOGPROBS = Check(
    "an integer from 0 to 20",
    lambda value: _is_integer(value) and 0 <= value <= 20,
    {"type": "integer", "minimum": 0, "maximum": 20},
)
NOT_HERE = Check(
    "left out: it is not supported here", lambda value: value is False, {"const": False}
)

_COMMON: Mapping[str, Check] = {
    "model": STRING,
    "stream": BOOLEAN,
    "stream_options": OBJECT,
    "max_tokens": INTEGER,
    "max_completion_tokens": INTEGER,
    "n": INTEGER,
    "seed": INTEGER,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "frequency_penalty": NUMBER,
    "presence_penalty": NUMBER,
    "stop": STRINGS,
    "logit_bias": BIAS,
    "user": STRING,
}

CHAT: Mapping[str, Check] = {
    **_COMMON,
    "messages": MESSAGES,
    "tools": FUNCTIONS,
    "tool_choice": STRING_OR_OBJECT,
    "parallel_tool_calls": BOOLEAN,
    "response_format": OBJECT,
    "logprobs": BOOLEAN,
    "top_logprobs": TOP_LOGPROBS,
    "n_probs": TOP_LOGPROBS,
}

COMPLETION: Mapping[str, Check] = {
    **_COMMON,
    "prompt": PROMPT,
    "logprobs": TOP_LOGPROBS,
    "n_probs": TOP_LOGPROBS,
    "echo": NOT_HERE,
    "suffix": NOT_HERE,
}

MESSAGE: Mapping[str, Check] = {
    "model": STRING,
    "messages": MESSAGES,
    "max_tokens": INTEGER,
    "system": STRING_OR_ARRAY._replace(expected="a string or an array of blocks"),
    "stream": BOOLEAN,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": INTEGER,
    "stop_sequences": STRINGS,
    "thinking": OBJECT,
    "metadata": OBJECT,
    "tool_choice": OBJECT,
}
"""Anthropic's messages; their tools have a form of their own, which the engine checks."""

COUNT: Mapping[str, Check] = {**MESSAGE, "stream": NOT_HERE}

RESPONSE: Mapping[str, Check] = {
    "model": STRING,
    "input": STRING_OR_ARRAY._replace(expected="a string or an array of items"),
    "instructions": STRING,
    "stream": BOOLEAN,
    "max_output_tokens": INTEGER,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "reasoning": OBJECT,
    "text": OBJECT,
    "tools": ARRAY,
    "previous_response_id": Check(
        "left out: answers are not kept here, send the whole conversation",
        lambda value: value == "",
        {"const": ""},
    ),
}

EMBEDDING: Mapping[str, Check] = {
    "model": STRING,
    "input": PROMPT,
    "stream": NOT_HERE,
    "encoding_format": STRING,
    "dimensions": NOT_HERE,
    "user": STRING,
}

REQUIRED = ("messages", "prompt", "input")


async def read_body(
    request: Request,
    limit_bytes: int = MAX_BODY_BYTES,
    idle_seconds: float = BODY_IDLE_SECONDS,
    *,
    share: Share,
) -> bytes:
    """The whole body of a request. It is held as `share` of what may be held.

    Raises:
        RequestFailed: 413, 408, 415 or 503.
        ClientDisconnect: nobody is left to answer.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise RequestFailed(failure.unsupported_encoding(encoding))
    pieces: list[bytes] = []
    size, refused = 0, None
    until = time.monotonic() + BODY_SECONDS
    while True:
        if time.monotonic() > until:
            raise RequestFailed(failure.body_too_slow(BODY_SECONDS, whole=True))
        try:
            receiving = Begun(request.receive())
            if receiving.done:
                message = receiving.result
            else:
                async with asyncio.timeout(idle_seconds):
                    message = await receiving
        except TimeoutError:
            raise RequestFailed(failure.body_too_slow(idle_seconds)) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            refused = failure.body_too_large(limit_bytes)
        elif refused is None and not share.take(len(piece)):
            refused = failure.bodies_too_large(share.held.most_bytes)
        if refused is None:
            pieces.append(piece)
        else:
            pieces.clear()
            share.give_back()
        last = not message.get("more_body", False)
        if refused is not None and (last or size > limit_bytes * _DISCARD_FACTOR):
            raise RequestFailed(refused)
        if last:
            return b"".join(pieces)


async def discard_body(
    request: Request,
    limit_bytes: int = MAX_BODY_BYTES,
    total_seconds: float = DISCARD_SECONDS,
) -> bool:
    """Reads a body that nobody wants and keeps nothing of it, so that its client can finish sending
    and then read an answer. False if that took too much, or was not begun: then the connection has
    to be closed with the answer."""
    if "expect" in request.headers:
        return False  # the client asks first, and will not send it
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(total_seconds):
            while size <= limit_bytes:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    return False
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    return False


def parse_call(body: bytes, fields: Mapping[str, Check]) -> Call:
    """Checks a request against the fields of its route.

    Raises:
        RequestFailed: 400, with `param` naming the field.
    """
    data = _parse_json(body)
    for name in REQUIRED:
        if name in fields and data.get(name) is None:
            raise RequestFailed(
                failure.bad_request(f"“{name}” is missing.", param=name, code="missing_field")
            )
    for name, value in data.items():
        check = fields.get(name)
        if check is not None and value is not None and not check.fits(value):
            raise _wrong(name, check.expected)
    if "messages" in fields:
        _check_messages(data["messages"])
    media = [
        found
        for name in ("messages", "input")
        if name in fields
        for found in _inline_media(data.get(name), name)
    ]
    if "tools" in fields and "messages" in fields:
        _check_tools(data.get("tools") or [])
    return Call(body, data, data.get("model"), data.get("stream") is True, media)


def _wrong(param: str, expected: str) -> RequestFailed:
    return RequestFailed(
        failure.bad_request(f"“{param}” must be {expected}.", param=param, code="invalid_type")
    )


def _parse_json(body: bytes) -> dict[str, Any]:
    containers = body.count(b"[") + body.count(b"{")
    if containers > MOST_CONTAINERS or body.count(b",") > MOST_VALUES:
        raise RequestFailed(
            failure.bad_request(
                "The request body holds too many values.",
                code="too_many_values",
                hint=f"At most {MOST_CONTAINERS:,} brackets and {MOST_VALUES:,} commas, "
                "those in texts included.",
            )
        )
    try:
        data = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RequestFailed(
            failure.bad_request(
                f"The request body is not UTF-8 (byte {error.start}).", code="invalid_json"
            )
        ) from error
    except RecursionError as error:
        raise RequestFailed(_too_deep()) from error
    except ValueError as error:
        raise RequestFailed(
            failure.bad_request(
                f"The request body is not valid JSON: {error}.",
                code="invalid_json",
                hint="Send one JSON object.",
            )
        ) from error
    if not isinstance(data, dict):
        raise RequestFailed(
            failure.bad_request("The request body must be one JSON object.", code="invalid_json")
        )
    if containers > MAX_JSON_DEPTH and _deeper_than(data, MAX_JSON_DEPTH):
        raise RequestFailed(_too_deep())
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _too_deep() -> failure.Failure:
    return failure.bad_request(
        f"The request body is nested deeper than {MAX_JSON_DEPTH} levels.", code="too_deep"
    )


def _deeper_than(data: Any, limit: int) -> bool:
    level = [data]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise _wrong("messages", "an array of at least one message")
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _wrong(place, "an object")
        if not isinstance(message.get("role"), str):
            raise _wrong(f"{place}.role", "a string")
        _check_content(message.get("content"), f"{place}.content")
        calls = message.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and all(map(_is_tool, calls))):
            raise _wrong(f"{place}.tool_calls", "an array of function calls")


def _check_content(content: Any, place: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _wrong(place, "a string or an array of parts")
    for index, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise _wrong(f"{place}[{index}]", "an object with a type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise _wrong(f"{place}[{index}].text", "a string")


_MEDIA: Mapping[str, str] = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "input_video": "video",
    "video_url": "video",
}
"""Types of parts → what a model has to take."""


def _parts(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every image, sound and film in it, wherever it lies: what it is, the part, and its place."""
    if isinstance(value, list):
        for index, entry in enumerate(value):
            if isinstance(entry, dict | list):
                yield from _parts(entry, f"{place}[{index}]")
    elif isinstance(value, dict):
        name = value.get("type")
        kind = _MEDIA.get(name) if isinstance(name, str) else None
        if kind is not None:
            yield kind, value, place
        for key, inner in value.items():
            if name == "tool_use" and key == "input":
                continue  # what a model once said to a tool
            if isinstance(inner, dict | list):
                yield from _parts(inner, f"{place}.{key}")


def _inline_media(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """What each is, and its place. An engine would fetch what an address names, from wherever it
    stands: behind the firewall, beside services that trust their neighbours. So images and sounds
    come within the request."""
    for kind, part, at in _parts(value, place):
        _check_inline(part, at)
        yield kind, at


def check_taken(media: Sequence[tuple[str, str]], takes: Collection[str]) -> None:
    """
    Raises:
        RequestFailed: 400, there is something among it that the model does not take.
    """
    for kind, at in media:
        if kind not in takes:
            raise RequestFailed(
                failure.bad_request(
                    f"This model takes {' and '.join(takes)}, and no {kind}.",
                    param=at,
                    code="unsupported_input",
                    hint="A model that does needs its projector (mmproj….gguf) beside it.",
                )
            )


def _check_inline(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_inline(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_inline(inner, f"{place}[{index}]")
    elif isinstance(value, str) and value.lstrip().lower().startswith(("http", "file:")):
        raise RequestFailed(
            failure.bad_request(
                "Images and sounds are not fetched from elsewhere.",
                param=place,
                code="remote_media",
                hint="Send it within the request: data:image/png;base64,…",
            )
        )


def _check_tools(tools: list[Any]) -> None:
    for index, tool in enumerate(tools):
        if not _is_tool(tool):
            raise _wrong(f"tools[{index}]", "a function with a name")


def _is_tool(tool: Any) -> bool:
    """A function that is offered, or a call of one: both carry their name in the same place."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return False
    function = tool.get("function")
    return isinstance(function, dict) and isinstance(function.get("name"), str)
