"""The events of a streamed answer, for each API: what a person reads in them, and what else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from moestro.client.sse import event_data
from moestro.client.text import json_bytes

FINISH = "finish"
"""How the `once` of an event begins that says why an answer ended."""

Kind = Literal["text", "reasoning", "tool", "once", "end", "other"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event is. `text` is what it adds to the answer, or to the reasoning before it;
    `once` names an event of which a stream has one (`role`, `start of text`): a stream that goes on
    with another one leaves it out."""

    kind: Kind
    text: str = ""
    once: str = ""


class Event:
    """One server-sent event with a JSON object in it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        data = event_data(raw)
        self.data = json_object(data) if data is not None and data.startswith(b"{") else {}

    def write(self, data: Mapping[str, Any]) -> bytes:
        """The same event with other data."""
        name = b""
        if self.raw.startswith(b"event:"):
            name = self.raw[: self.raw.index(b"\n") + 1]
        return name + b"data: " + json_bytes(data) + b"\n\n"


def json_object(text: bytes) -> dict[str, Any]:
    """Empty for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class EventForm:
    """How an API streams. `held` are bytes that only an event of a tool call holds, `last` those
    that only the last event of all holds."""

    piece: Callable[[Mapping[str, Any]], Piece]
    with_text: Callable[[dict[str, Any], str], None]
    usage: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    prompt_name: str
    answer_name: str
    held: tuple[bytes, ...]
    last: bytes


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


# Chat completions


def _chat_piece(data: Mapping[str, Any]) -> Piece:
    choice = _first(data)
    delta, index = _mapping(choice.get("delta")), choice.get("index", 0)
    if choice.get("finish_reason") is not None:
        return Piece("end", once=f"{FINISH} {index}")
    if delta.get("tool_calls"):
        return Piece("tool")
    for name, kind in (("reasoning_content", "reasoning"), ("content", "text")):
        text = delta.get(name)
        if isinstance(text, str) and text:
            return Piece(kind, text)  # type: ignore[arg-type]
    if "role" in delta:
        return Piece("once", once=f"role {index}")
    return Piece("other")


def _chat_with_text(data: dict[str, Any], text: str) -> None:
    delta = data["choices"][0]["delta"]
    delta["content" if isinstance(delta.get("content"), str) else "reasoning_content"] = text


def _openai_usage(data: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = data.get("usage")
    return usage if isinstance(usage, dict) else None


CHAT_EVENTS = EventForm(
    _chat_piece,
    _chat_with_text,
    _openai_usage,
    "prompt_tokens",
    "completion_tokens",
    (b'"tool_calls":',),
    b"data: [DONE]",
)


# Completions


def _completion_piece(data: Mapping[str, Any]) -> Piece:
    choice = _first(data)
    if choice.get("finish_reason") is not None:
        return Piece("end", once=f"{FINISH} {choice.get('index', 0)}")
    text = choice.get("text")
    return Piece("text", text) if isinstance(text, str) and text else Piece("other")


def _completion_with_text(data: dict[str, Any], text: str) -> None:
    data["choices"][0]["text"] = text


COMPLETION_EVENTS = EventForm(
    _completion_piece,
    _completion_with_text,
    _openai_usage,
    "prompt_tokens",
    "completion_tokens",
    (),
    b"data: [DONE]",
)


# Anthropic's messages


def _message_piece(data: Mapping[str, Any]) -> Piece:
    match data.get("type"):
        case "message_start":
            return Piece("once", once="message")
        case "content_block_start":
            kind = str(_mapping(data.get("content_block")).get("type"))
            return Piece("tool") if kind == "tool_use" else Piece("once", once=f"start of {kind}")
        case "content_block_delta":
            delta = _mapping(data.get("delta"))
            if isinstance(text := delta.get("text"), str):
                return Piece("text", text)
            if isinstance(text := delta.get("thinking"), str):
                return Piece("reasoning", text)
            return Piece("tool") if "partial_json" in delta else Piece("other")
        case "message_delta":
            return Piece("end", once=FINISH)
        case _:
            return Piece("other")


def _message_with_text(data: dict[str, Any], text: str) -> None:
    delta = data["delta"]
    delta["text" if "text" in delta else "thinking"] = text


def _message_usage(data: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = data.get("usage")
    return usage if data.get("type") == "message_delta" and isinstance(usage, dict) else None


MESSAGE_EVENTS = EventForm(
    _message_piece,
    _message_with_text,
    _message_usage,
    "input_tokens",
    "output_tokens",
    (b'"tool_use"',),
    b'"type":"message_stop"',
)


# Responses


def _response_piece(data: Mapping[str, Any]) -> Piece:
    kind = str(data.get("type"))
    item = str(_mapping(data.get("item")).get("type"))
    match kind:
        case "response.output_text.delta":
            return Piece("text", str(data.get("delta") or ""))
        case "response.reasoning_text.delta":
            return Piece("reasoning", str(data.get("delta") or ""))
        case "response.created" | "response.in_progress" | "response.content_part.added":
            return Piece("once", once=kind)
        case "response.output_item.added":
            return (
                Piece("tool") if item == "function_call" else Piece("once", once=f"{kind} {item}")
            )
        case "response.function_call_arguments.delta":
            return Piece("tool")
        case "response.completed" | "response.incomplete":
            return Piece("end", once=FINISH)
        case _:
            return Piece("other")


def _response_with_text(data: dict[str, Any], text: str) -> None:
    data["delta"] = text


def _response_usage(data: Mapping[str, Any]) -> dict[str, Any] | None:
    usage = _mapping(data.get("response")).get("usage")
    return usage if isinstance(usage, dict) else None


RESPONSE_EVENTS = EventForm(
    _response_piece,
    _response_with_text,
    _response_usage,
    "input_tokens",
    "output_tokens",
    (b'"function_call"', b'"response.function_call_arguments.delta"'),
    b'"type":"response.completed"',
)
