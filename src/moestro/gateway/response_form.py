"""OpenAI's responses, made whole.

llama.cpp leaves out what its own page does not read: the places of items and parts, the numbers of
events, most fields of a response, and whether the answer was cut short. The official clients follow
a stream by those places, and fail without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moestro.client.sse import EventSplitter
from moestro.client.text import json_bytes
from moestro.gateway.answer_events import Event, json_object

_PART = frozenset(
    {
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
    }
)
"""Events of a part: an item has one here."""

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}
"""Fields of a response that repeat the request's, and what they are where it says nothing."""

CUT = {"reason": "max_output_tokens"}


class ResponseForm:
    """For the answer to one request. `model` names what answers, `created` is now, in seconds since
    the epoch."""

    def __init__(self, request: Mapping[str, Any], model: str, created: int) -> None:
        self._request = request
        self._model = model
        self._created = created
        self.cut = False
        """Whether it ended for want of tokens."""

        self._number = 0
        self._places: dict[str, int] = {}
        self._texts: dict[str, list[str]] = {}

    def whole(self, body: bytes) -> bytes:
        """An answer that is no stream; what is no response stays as it is."""
        response = json_object(body)
        if response.get("object") != "response":
            return body
        return json_bytes(self._response(response))

    def events(self, raw: bytes) -> bytes:
        """Whole events of a stream, for the client."""
        return b"".join(map(self._event, EventSplitter().feed(raw)))

    def _event(self, raw: bytes) -> bytes:
        event = Event(raw)
        data = event.data
        kind = data.get("type")
        if not isinstance(kind, str) or not kind.startswith("response."):
            return raw
        data["sequence_number"] = self._number
        self._number += 1
        if isinstance(response := data.get("response"), dict):
            data["response"] = self._response(response)
            if data["response"]["status"] == "incomplete":
                data["type"] = kind = "response.incomplete"
                raw = raw.replace(b"event: response.completed\n", b"event: response.incomplete\n")
                event.raw = raw
        item = data.get("item")
        name = data.get("item_id")
        if isinstance(item, dict):
            name = item.get("id")
        if isinstance(name, str):
            data["output_index"] = self._places.setdefault(name, len(self._places))
            if kind in _PART:
                data["content_index"] = 0
            self._with_text(kind, name, data)
        return event.write(data)

    def _with_text(self, kind: str, name: str, data: dict[str, Any]) -> None:
        """All of it at its end, whichever engines wrote it."""
        match kind:
            case "response.output_text.delta":
                self._texts.setdefault(name, []).append(str(data.get("delta") or ""))
                data.setdefault("logprobs", [])
            case "response.output_text.done":
                data["text"] = self._said(name, data.get("text"))
                data.setdefault("logprobs", [])
            case "response.content_part.added" | "response.content_part.done":
                self._part(name, data.get("part"))
            case "response.output_item.done":
                self._item(data["item"])

    def _said(self, name: str, told: Any) -> Any:
        return "".join(self._texts[name]) if name in self._texts else told

    def _part(self, name: str, part: Any) -> None:
        if isinstance(part, dict) and part.get("type") == "output_text":
            part["text"] = self._said(name, part.get("text"))
            part.setdefault("annotations", [])
            part.setdefault("logprobs", [])

    def _item(self, item: Any) -> None:
        if isinstance(item, dict) and item.get("type") == "message":
            for part in item.get("content") or ():
                self._part(str(item.get("id")), part)

    def _response(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """`incomplete` is one with as many tokens as it might have: the engine does not say why it
        ended. A last word in the last token counts as cut short, too."""
        said = self._request
        echoed = {
            name: said[name] if said.get(name) is not None else other
            for name, other in _ECHOED.items()
        }
        response: dict[str, Any] = {
            "model": self._model, "error": None,
            "incomplete_details": None, "output": [], **echoed, **found,
            "created_at": self._created,
        }  # fmt: skip
        for item in response["output"]:
            self._item(item)
        most, usage = said.get("max_output_tokens"), found.get("usage")
        if isinstance(usage, dict):
            usage.setdefault("output_tokens_details", {"reasoning_tokens": 0})
            written = usage.get("output_tokens")
            if isinstance(most, int | float) and isinstance(written, int) and written >= most > 0:
                self.cut = True
                response |= {"status": "incomplete", "incomplete_details": CUT}
        return response
