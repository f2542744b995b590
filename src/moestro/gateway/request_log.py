"""A line for each request under /v1: who asked for what, how it ended, what it took.

What it said is left out unless somebody wants it; answers are never written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moestro.gateway import request_id
from moestro.gateway.access import CALLER, STRANGER
from moestro.gateway.counted import ROUTE
from moestro.gateway.meters import RequestMeter

METER = "moestro.meter"
"""Where a request's scope holds what its relay measured."""

MOST_PROMPT_BYTES = 64 << 10
"""Of a request's body, where it is written at all."""


@dataclass(frozen=True, slots=True)
class RequestLog:
    """`write` takes a line for people and the same for programs; it must not wait."""

    write: Callable[[str, dict[str, Any]], None]
    prompts: bool = False


class Logged:
    """Around everything that answers requests, and inside of what names them."""

    def __init__(self, app: ASGIApp, log: RequestLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status: int | None = None
        body = bytearray()

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def receive_seen() -> Message:
            message = await receive()
            if len(body) <= MOST_PROMPT_BYTES:
                body.extend(message.get("body", b"")[: MOST_PROMPT_BYTES + 1])
            return message

        try:
            await self._app(scope, receive_seen if self._log.prompts else receive, send_seen)
        finally:
            told = _told(scope, status, time.monotonic() - begun)
            if self._log.prompts and METER in scope:
                told |= _prompt(bytes(body))
            self._log.write(_line(told), told)


def _told(scope: Scope, status: int | None, seconds: float) -> dict[str, Any]:
    """Nothing of it is what a client wrote."""
    caller = scope.get(CALLER, STRANGER)
    told: dict[str, Any] = {
        "id": scope[request_id.IN_SCOPE].decode(),
        "key": caller.id or None,
        "route": scope[ROUTE],
        "status": status,
        "seconds": round(seconds, 3),
    }
    meter: RequestMeter | None = scope.get(METER)
    ended = meter.ended if meter is not None else None
    if meter is None or ended is None:
        return told
    return told | {
        "end": ended.reason,
        "code": ended.failure,
        "prompt_tokens": ended.prompt,
        "cached_tokens": ended.cached,
        "answer_tokens": ended.written,
        "wait_seconds": round(ended.waited, 3),
        "first_token_seconds": None if ended.first is None else round(ended.first, 3),
        "engines_lost": meter.interrupted,
    }


def _prompt(body: bytes) -> dict[str, Any]:
    """The body as it came; `body_cut` where there was more of it."""
    text = body[:MOST_PROMPT_BYTES].decode(errors="replace")
    return {"body": text, "body_cut": len(body) > MOST_PROMPT_BYTES}


def _line(told: dict[str, Any]) -> str:
    said = [told["id"], told["route"], str(told["status"] or "unanswered")]
    if "end" in told:
        end = told["end"] if told["code"] is None else told["code"]
        read = "?" if told["prompt_tokens"] is None else told["prompt_tokens"]
        said.append(f"{end}, {read} tokens read, {told['answer_tokens']} written,")
        if told["first_token_seconds"] is not None:
            said.append(f"the first after {told['first_token_seconds']:.2f} s,")
        if told["engines_lost"]:
            said.append(f"engines lost {told['engines_lost']},")
    said.append(f"{told['seconds']:.2f} s")
    if told["key"] is not None:
        said.append(f"key {told['key']}")
    if "body" in told:
        said.append(json.dumps(told["body"], ensure_ascii=False) + "…" * told["body_cut"])
    return " ".join(said)
