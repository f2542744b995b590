"""A client of an OpenAI endpoint, for the verbs that talk to one."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp

from moestro.client.sse import DONE, EventSplitter, EventTooLarge, event_data
from moestro.client.text import valid_text
from moestro.errors import GatewayError, UsageError

Kind = TypeVar("Kind")

CONNECT_SECONDS = 5.0
LIST_SECONDS = 10.0

_BROKEN = (aiohttp.ClientError, OSError, EventTooLarge)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event added to the answer."""

    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Timings:
    """Measured here, from the moment the request was sent.

    `tokens_per_second` is the rate of generation: tokens after the first, divided by the time from
    the first to the last piece. None where there was no second token.
    """

    time_to_first_token_seconds: float | None
    total_seconds: float
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """`finish_reason` None means that it was not finished; `usage` None that nobody counted."""

    text: str
    reasoning: str
    model: str | None
    finish_reason: str | None
    usage: Mapping[str, Any] | None
    timings: Timings

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class AnswerStream:
    """An answer while it comes. `answer` holds what has come so far, at any moment."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, asked_at: float) -> None:
        self._response = response
        self._url = url
        self._asked_at = asked_at
        self._first_at: float | None = None
        self._last_at: float | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._complete = False

    async def __aiter__(self) -> AsyncIterator[Piece]:
        splitter = EventSplitter()
        try:
            async for chunk in self._response.content.iter_any():
                for event in splitter.feed(chunk):
                    data = event_data(event)
                    if data == DONE:
                        self._complete = True
                        return
                    if data is not None:
                        piece = self._read(data)
                        if piece.text or piece.reasoning:
                            yield piece
        except _BROKEN as error:
            raise _broke_off(self._url) from error
        if not self._complete:
            raise _broke_off(self._url)

    def _read(self, data: bytes) -> Piece:
        event = _json_object(data, self._url)
        if event.get("error") is not None:
            raise _refused(event, 500, self._url)
        self._model = self._field(event, "model", str) or self._model
        self._usage = self._field(event, "usage", dict) or self._usage
        choices = self._field(event, "choices", list) or [{}]
        choice = choices[0]
        if not isinstance(choice, dict):
            raise _not_an_endpoint(self._url)
        self._finish_reason = self._field(choice, "finish_reason", str) or self._finish_reason
        delta = self._field(choice, "delta", dict) or {}
        piece = Piece(
            valid_text(self._field(delta, "content", str) or ""),
            valid_text(self._field(delta, "reasoning_content", str) or ""),
        )
        if piece.text or piece.reasoning:
            self._last_at = time.monotonic()
            self._first_at = self._first_at or self._last_at
            self._text.append(piece.text)
            self._reasoning.append(piece.reasoning)
        return piece

    def _field(self, data: Mapping[str, Any], name: str, kind: type[Kind]) -> Kind | None:
        value = data.get(name)
        if value is not None and not isinstance(value, kind):
            raise _not_an_endpoint(self._url)
        return value

    @property
    def answer(self) -> Answer:
        return Answer(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            model=self._model,
            finish_reason=self._finish_reason,
            usage=self._usage,
            timings=self._timings(),
        )

    def _timings(self) -> Timings:
        if self._first_at is None or self._last_at is None:
            return Timings(None, time.monotonic() - self._asked_at, None)
        tokens = (self._usage or {}).get("completion_tokens")
        seconds = self._last_at - self._first_at
        rate = (
            (tokens - 1) / seconds if isinstance(tokens, int) and tokens > 1 and seconds else None
        )
        return Timings(self._first_at - self._asked_at, self._last_at - self._asked_at, rate)


class EndpointClient:
    """Use as an async context manager."""

    def __init__(self, url: str) -> None:
        self.url = normal_url(url)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def models(self) -> list[dict[str, Any]]:
        """What the endpoint serves.

        Raises:
            GatewayError: nothing answers there, or something that is not such an endpoint.
        """
        timeout = aiohttp.ClientTimeout(total=LIST_SECONDS)
        try:
            async with self._open.get(f"{self.url}/v1/models", timeout=timeout) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(self.url) from error
        listing = _json_object(body, self.url)
        if response.status != 200:
            raise _refused(listing, response.status, self.url)
        models = listing.get("data")
        if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise _not_an_endpoint(self.url)
        return models

    @asynccontextmanager
    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        model: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[AnswerStream]:
        """Asks for an answer; leaving the context ends its generation.

        Raises:
            GatewayError: unreachable, refused, or broken off in the middle.
        """
        request = {
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"model": model} if model is not None else {}),
            **(options or {}),
        }
        asked_at = time.monotonic()
        try:
            response = await self._open.post(f"{self.url}/v1/chat/completions", json=request)
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(self.url) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _broke_off(self.url) from error
        try:
            if response.status != 200:
                body = _json_object(await response.read(), self.url)
                raise _refused(body, response.status, self.url)
            yield AnswerStream(response, self.url, asked_at)
        finally:
            response.close()

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        return self._session


def normal_url(url: str) -> str:
    """`http://host:port` from what a person types: without scheme, with `/v1`, with a slash.

    Raises:
        UsageError: not an HTTP address.
    """
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # raises a ValueError where no host can be so called
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"“{url}” is not an HTTP address.", hint="Write http://127.0.0.1:8642.")
    return full.rstrip("/").removesuffix("/v1").rstrip("/")


def _json_object(body: bytes, url: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _not_an_endpoint(url) from error
    if not isinstance(data, dict):
        raise _not_an_endpoint(url)
    return data


def _unreachable(url: str) -> GatewayError:
    return GatewayError(
        f"Nothing answers at {url}.",
        hint="Start a model with `moestro up`, or give another address with --url.",
        code="endpoint-unreachable",
    )


def _broke_off(url: str) -> GatewayError:
    return GatewayError(
        f"{url} closed the connection before the answer was complete.",
        hint="Ask again; if it happens again, look at the service's terminal.",
        code="endpoint-broke-off",
    )


def _not_an_endpoint(url: str) -> GatewayError:
    return GatewayError(
        f"What answers at {url} is not an OpenAI endpoint.",
        hint="Give the address of one with --url.",
        code="not-an-endpoint",
    )


def _refused(body: Mapping[str, Any], status: int, url: str) -> GatewayError:
    error = body.get("error")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return GatewayError(
            f"{url} answered with HTTP status {status} and no explanation.",
            code="endpoint-refused",
        )
    hint, code = error.get("hint"), error.get("code")
    return GatewayError(
        error["message"],
        hint=hint if isinstance(hint, str) else None,
        code=code.replace("_", "-") if isinstance(code, str) else "endpoint-refused",
    )
