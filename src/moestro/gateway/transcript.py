"""A streamed answer as its client has it, and how another engine goes on with it.

While nothing breaks, events pass through as they came and are only kept. When an engine is gone,
what was sent is read, and there are two ways on. *Continued*: the request once more, with the text
as the beginning of the answer. *Replayed*: the request once more from its start, with the same
seed, and what the client has of it is left out. Most answers are continued. Those under a grammar
or a schema are replayed first: such a text is often cut into other tokens than it was written in,
and a continuation, though as valid, would be another one. Each is the other's second choice: a text
may be no beginning that the model's template can hold, and a replay may turn out otherwise. Tool
calls are passed on when they are whole, so a broken one was never seen.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moestro.client.text import json_bytes
from moestro.gateway.answer_events import (
    CHAT_EVENTS,
    COMPLETION_EVENTS,
    FINISH,
    MESSAGE_EVENTS,
    RESPONSE_EVENTS,
    Event,
    EventForm,
    Piece,
)
from moestro.gateway.response_form import ResponseForm

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""Posts JSON to the engine that is to go on; the answer, or None where it refuses."""

Beginning = Callable[[Mapping[str, Any], str, str], dict[str, Any] | None]
"""(request, reasoning, text) → the request that goes on from there; None if there is no way."""

Had = Callable[[Ask, Mapping[str, Any], Mapping[str, Any]], Awaitable[int | None]]
"""(ask, the request, the one that goes on) → how many tokens the client has; None where the second
is not the first one with a beginning."""

UNREAD_EVENTS = 512
"""Events that are kept as they are; then their text is taken out, which is much shorter."""


_CONSTRAINED = frozenset({"response_format", "json_schema", "grammar", "text"})


class Diverged(Exception):
    """Another engine tells another answer than the one whose beginning the client has."""


@dataclass(slots=True)
class _Said:
    """What the client has."""

    reasoning: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    once: set[str] = field(default_factory=set)
    ids: dict[str, str] = field(default_factory=dict)
    created: Any = None

    def add(self, piece: Piece, data: Mapping[str, Any]) -> None:
        if piece.kind == "text":
            self.text.append(piece.text)
        elif piece.kind == "reasoning":
            self.reasoning.append(piece.text)
        if piece.once:
            self.once.add(piece.once)
        for role, name in _ids(data):
            self.ids.setdefault(role, name)
        if self.created is None:
            self.created = data.get("created")


@dataclass(frozen=True, slots=True)
class Api:
    """What a route needs so that its streams can go on. `most` are the fields that bound an
    answer, in tokens. `form` completes what the engine leaves out: for (request, the model's name,
    seconds since the epoch)."""

    events: EventForm
    beginning: Beginning
    had: Had
    most: tuple[str, ...]
    form: Callable[[Mapping[str, Any], str, int], ResponseForm] | None = None


class Transcript:
    """One streamed answer, over the engines that write it."""

    def __init__(self, api: Api, body: bytes, request: Mapping[str, Any]) -> None:
        self._api = api
        self._request = request
        self._body = body
        self._said = _Said()
        self._raw: list[bytes] = []
        self._held: list[bytes] = []
        self._holding = _several(request)
        self._attempts = 0
        self._skip: dict[str, str] = {}
        self._new_ids: dict[bytes, bytes] = {}
        self._had_tokens = 0
        self._mute = False
        self.diverged = False
        self._replays = bool(request.keys() & _CONSTRAINED)
        self._seed: int | None = None

    @property
    def begun(self) -> bool:
        """Whether the client has anything of the answer."""
        return bool(self._raw or self._said.once or self._said.text or self._said.reasoning)

    @property
    def had_tokens(self) -> int:
        """Of the answer, that the engine reads instead of writing them."""
        return self._had_tokens

    def first_body(self) -> bytes:
        """The request, with a seed where it has none: a replay has to draw the same tokens."""
        if "seed" in self._request and not _draws(self._request["seed"]):
            return self._body
        if self._seed is None:
            self._seed = random.getrandbits(31)
        if "seed" in self._request:
            return json_bytes({**self._request, "seed": self._seed})
        start = self._body.index(b"{") + 1
        return b'%b"seed":%d,%b' % (self._body[:start], self._seed, self._body[start:])

    def feed(self, event: bytes) -> bytes:
        """What the client gets of an event of the engine, now.

        Raises:
            Diverged: in a replay.
        """
        if self._holding or any(mark in event for mark in self._api.events.held):
            self._holding = True
            self._held.append(event)
            return b""
        if self._attempts == 0:
            self._raw.append(event)
            if len(self._raw) >= UNREAD_EVENTS:
                self._read()
            return event
        return self._further(event)

    def ends_with(self, event: bytes) -> bool:
        """Whether the answer is whole with this event of the engine."""
        last = self._api.events.last
        # Of a JSON string only the marks with quotes cannot be a part.
        return last in event if b'"' in last else event.startswith(last)

    def finish(self) -> bytes:
        """What was held back, now that the answer is whole."""
        held, self._held, self._holding = self._held, [], False
        if self._attempts == 0 or not held:
            return b"".join(held)
        return b"".join(self._further(event) for event in held)

    # After a break

    def replay_failed(self) -> None:
        """It told another answer; the next way is to continue."""
        self.diverged, self._replays = True, False

    async def resume(self, ask: Ask) -> bytes:
        """The request for the next engine.

        Raises:
            Diverged: there is no way left.
            whatever `ask` raises.
        """
        self._read()
        self._held, self._holding = [], _several(self._request)
        self._attempts += 1
        self._skip, self._new_ids = {}, {}
        self._had_tokens = 0
        self._mute = any(one.startswith(FINISH) for one in self._said.once)
        reasoning, text = "".join(self._said.reasoning), "".join(self._said.text)
        if not reasoning and not text:
            return self.first_body()
        if not self._replays:
            going_on = await self._continued(ask, reasoning, text)
            if going_on is not None:
                return json_bytes(going_on)
            if self.diverged:
                raise Diverged
        self._skip = {"reasoning": reasoning, "text": text}
        return self.first_body()

    async def _continued(self, ask: Ask, reasoning: str, text: str) -> dict[str, Any] | None:
        """The request that goes on from the text; None where a replay is safer.

        A template may render the beginning of an answer otherwise than the model wrote it. Where
        the engine shows its prompt, the new one has to be the old one and the text behind it.
        """
        further = self._api.beginning(self._request, reasoning, text)
        if further is None:
            return None
        had = await self._api.had(ask, self._request, further)
        if had is None:
            return None
        self._had_tokens = had
        for name in self._api.most:
            most = self._request.get(name)
            if isinstance(most, int | float) and most > 0:
                self._mute = self._mute or most <= had
                further[name] = max(int(most) - had, 1)
        return further

    def _further(self, raw: bytes) -> bytes:
        """An event of an engine that goes on with, or replays, what another one began."""
        event = Event(raw)
        if not event.data:
            return raw
        form, data = self._api.events, event.data
        piece = form.piece(data)
        self._know_ids(data)
        if piece.once and piece.once in self._said.once:
            return b""
        if piece.kind in ("text", "reasoning"):
            text = "" if self._mute else self._unsaid(piece)
            if not text:
                return b""
            if text != piece.text:
                form.with_text(data, text)
                piece = Piece(piece.kind, text)
        elif piece.kind in ("tool", "end") and any(self._skip.values()):
            raise Diverged
        self._count(form, data)
        if "created" in data:
            data["created"] = self._said.created or data["created"]
        self._said.add(piece, data)
        written = event.write(data)
        for new, old in self._new_ids.items():
            written = written.replace(new, old)
        return written

    def _unsaid(self, piece: Piece) -> str:
        """What the client does not have of it yet."""
        if piece.kind == "text" and self._skip.get("reasoning"):
            raise Diverged
        skip = self._skip.get(piece.kind, "")
        if skip.startswith(piece.text):
            self._skip[piece.kind] = skip[len(piece.text) :]
            return ""
        if not piece.text.startswith(skip):
            raise Diverged
        if piece.kind == "reasoning" and self._skip.get("text"):
            raise Diverged
        self._skip[piece.kind] = ""
        return piece.text[len(skip) :]

    def _know_ids(self, data: Mapping[str, Any]) -> None:
        for role, name in _ids(data):
            old = self._said.ids.get(role)
            if old is not None and old != name:
                self._new_ids[name.encode()] = old.encode()

    def _count(self, form: EventForm, data: dict[str, Any]) -> None:
        """What was written before belongs to the answer, though this engine read it."""
        usage = form.usage(data)
        if usage is None:
            return
        for name, change in (
            (form.prompt_name, -self._had_tokens),
            (form.answer_name, self._had_tokens),
        ):
            if isinstance(usage.get(name), int):
                usage[name] = max(usage[name] + change, 0)

    def _read(self) -> None:
        for raw in self._raw:
            event = Event(raw)
            if event.data:
                self._said.add(self._api.events.piece(event.data), event.data)
        self._raw.clear()


def _ids(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names that an answer goes by, each with what it names."""
    found = [("", data.get("id"))]
    for part in ("message", "response", "item"):
        inner = data.get(part)
        if isinstance(inner, dict):
            kind = str(inner.get("type")) if part == "item" else part
            found.append((kind, inner.get("id")))
    return [(role, name) for role, name in found if isinstance(name, str) and name]


def _draws(seed: Any) -> bool:
    """Whether the engine would draw a seed itself: for null, for -1 and for that in 32 bits."""
    return seed is None or (isinstance(seed, int | float) and not 0 <= seed < 0xFFFFFFFF)


def _several(request: Mapping[str, Any]) -> bool:
    """Answers to several prompts, or several to one: held back until all of them are whole."""
    prompt = request.get("prompt")
    many = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
    counts = (request.get(name) for name in ("n", "n_cmpl"))  # the engine's own name is the second
    return many or any(isinstance(count, int | float) and count > 1 for count in counts)


# Where an answer begins, and how many tokens that is


def _chat_beginning(request: Mapping[str, Any], reasoning: str, text: str) -> dict[str, Any] | None:
    if "grammar" in request:
        return None
    messages: list[Any] = list(request["messages"])
    if messages[-1].get("role") == "assistant":
        before = messages.pop()
        if reasoning or not isinstance(before.get("content"), str) or before.get("tool_calls"):
            return None
        message = {**before, "content": before["content"] + text}
    else:
        message = {"role": "assistant", "content": text}
        if reasoning:
            message["reasoning_content"] = reasoning
    return {
        **request,
        "messages": [*messages, message],
        "continue_final_message": "content" if text else "reasoning_content",
        "add_generation_prompt": False,
    }


async def _chat_had(ask: Ask, request: Mapping[str, Any], further: Mapping[str, Any]) -> int | None:
    prompts = [await ask("/apply-template", {**one, "stream": False}) for one in (request, further)]
    before, after = (one.get("prompt") if isinstance(one, dict) else None for one in prompts)
    if not isinstance(before, str) or not isinstance(after, str) or not after.startswith(before):
        return None
    return await _tokens_between(ask, before, after)


def _completion_beginning(
    request: Mapping[str, Any], reasoning: str, text: str
) -> dict[str, Any] | None:
    if request.keys() & {"grammar", "json_schema"}:
        return None
    prompt = request["prompt"]
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return {**request, "prompt": prompt + text}
    return {**request, "prompt": [*prompt, text]} if isinstance(prompt, list) else None


async def _completion_had(
    ask: Ask, request: Mapping[str, Any], further: Mapping[str, Any]
) -> int | None:
    before, after = request["prompt"], further["prompt"]
    if isinstance(after, str):
        before = before[0] if isinstance(before, list) else before
        return await _tokens_between(ask, before, after)
    return await _tokens_between(ask, "", after[-1])


async def _tokens_between(ask: Ask, before: str, after: str) -> int | None:
    counts = []
    for text in (before, after):
        answer = await ask("/tokenize", {"content": text})
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            return None
        counts.append(len(tokens))
    return max(counts[1] - counts[0], 0)


def _message_beginning(
    request: Mapping[str, Any], reasoning: str, text: str
) -> dict[str, Any] | None:
    messages: list[Any] = list(request["messages"])
    if messages[-1].get("role") == "assistant":
        before = messages.pop()
        if reasoning or not isinstance(before.get("content"), str):
            return None
        return {
            **request,
            "messages": [*messages, {**before, "content": before["content"] + text}],
        }
    blocks: list[dict[str, Any]] = []
    if reasoning:
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": ""})
    if text:
        blocks.append({"type": "text", "text": text})
    return {**request, "messages": [*messages, {"role": "assistant", "content": blocks}]}


def _response_beginning(
    request: Mapping[str, Any], reasoning: str, text: str
) -> dict[str, Any] | None:
    given = request["input"]
    items: list[Any] = list(given) if isinstance(given, list) else [_spoken("user", given)]
    if not items or items[-1].get("role") == "assistant":
        return None
    if reasoning:
        content = [{"type": "reasoning_text", "text": reasoning}]
        items.append({"type": "reasoning", "summary": [], "content": content})
    if text:
        items.append(
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": text}],
            }
        )
    return {**request, "input": items}


def _spoken(role: str, text: Any) -> dict[str, Any]:
    return {"role": role, "content": text}


def _counted_at(path: str) -> Had:
    async def had(ask: Ask, request: Mapping[str, Any], further: Mapping[str, Any]) -> int | None:
        counts = []
        for one in (request, further):
            answer = await ask(path, {**one, "stream": False})
            count = answer.get("input_tokens") if isinstance(answer, dict) else None
            if not isinstance(count, int):
                return None
            counts.append(count)
        return max(counts[1] - counts[0], 0)

    return had


CHAT = Api(
    CHAT_EVENTS, _chat_beginning, _chat_had, ("max_tokens", "max_completion_tokens", "n_predict")
)
COMPLETION = Api(
    COMPLETION_EVENTS,
    _completion_beginning,
    _completion_had,
    ("max_tokens", "max_completion_tokens", "n_predict"),
)
MESSAGE = Api(
    MESSAGE_EVENTS,
    _message_beginning,
    _counted_at("/v1/messages/count_tokens"),
    ("max_tokens",),
)
RESPONSE = Api(
    RESPONSE_EVENTS,
    _response_beginning,
    _counted_at("/v1/responses/input_tokens"),
    ("max_output_tokens", "max_tokens", "n_predict"),
    ResponseForm,
)
