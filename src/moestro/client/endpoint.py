"""A client of an OpenAI endpoint, for the verbs that talk to one."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp

from moestro.client.sse import DONE, MAX_EVENT_BYTES, EventSplitter, EventTooLarge, event_data
from moestro.client.text import valid_text
from moestro.errors import GatewayError, UsageError

Kind = TypeVar("Kind")

CONNECT_SECONDS = 5.0
LIST_SECONDS = 10.0
IDLE_SECONDS = 2.0
"""How long an idle connection is kept: shorter than the 5 s after which common servers close it,
so that no request goes out on one that is just being closed."""

_END_SECONDS = 0.1
_MOST_BODY_BYTES = 16 * 1024 * 1024
_BROKEN = (aiohttp.ClientError, OSError, EventTooLarge)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event added to the answer. `call` is part of a tool call: its name or its
    arguments."""

    text: str = ""
    reasoning: str = ""
    call: str = ""


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
    """`finish_reason` None means that it was not finished; `usage` None that nobody counted;
    `engine_timings` are llama.cpp's own, None elsewhere."""

    text: str
    reasoning: str
    model: str | None
    finish_reason: str | None
    usage: Mapping[str, Any] | None
    timings: Timings
    engine_timings: Mapping[str, Any] | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """The rate of generation: tokens after the first by the time for them, as the engine says,
        or else as measured here, where several tokens may come together."""
        said = self.engine_timings or {}
        tokens, milliseconds = said.get("predicted_n"), said.get("predicted_ms")
        if not isinstance(tokens, int) or not isinstance(milliseconds, int | float):
            return self.timings.tokens_per_second
        if tokens < 2 or not 0 < milliseconds < math.inf:
            return self.timings.tokens_per_second
        return (tokens - 1) * 1000 / milliseconds

    def to_json(self) -> dict[str, Any]:
        """What every endpoint tells."""
        data = asdict(self)
        del data["engine_timings"]
        return data


class AnswerStream:
    """An answer while it comes. `answer` holds what has come so far, at any moment.

    Times are of `time.monotonic`: `piece_times` of each piece, `ended_at` of the end. Events that
    arrived together have one time.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        url: str,
        asked_at: float,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.piece_times: list[float] = []
        self.ended_at: float | None = None
        self._response = response
        self._url = url
        self._asked_at = asked_at
        self._max_event_bytes = max_event_bytes
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._engine_timings: Mapping[str, Any] | None = None

    async def __aiter__(self) -> AsyncIterator[Piece]:
        splitter = EventSplitter(self._max_event_bytes)
        try:
            async for chunk in self._response.content.iter_any():
                arrived_at = time.monotonic()
                for event in splitter.feed(chunk):
                    data = event_data(event)
                    if data == DONE:
                        self.ended_at = arrived_at
                        await self._read_to_the_end()
                        return
                    if data is not None:
                        piece = self._read(data)
                        if piece is not None:
                            self.piece_times.append(arrived_at)
                            yield piece
        except _BROKEN as error:
            raise _broke_off(self._url) from error
        raise _broke_off(self._url)

    async def _read_to_the_end(self) -> None:
        """The end of the body follows the last event; then the connection can serve again."""
        with suppress(TimeoutError, *_BROKEN):
            async with asyncio.timeout(_END_SECONDS):
                while await self._response.content.readany():
                    pass

    def _read(self, data: bytes) -> Piece | None:
        """None where the event adds nothing to the answer."""
        event = _json_object(data, self._url)
        if event.get("error") is not None:
            raise _refused(event, 500, self._url)
        self._model = self._field(event, "model", str) or self._model
        if "usage" in event:
            self._usage = self._field(event, "usage", dict) or self._usage
        if "timings" in event:
            self._engine_timings = self._field(event, "timings", dict) or self._engine_timings
        choices = self._field(event, "choices", list)
        if not choices:
            return None
        choice = choices[0]
        if not isinstance(choice, dict):
            raise _not_an_endpoint(self._url)
        self._finish_reason = self._field(choice, "finish_reason", str) or self._finish_reason
        delta = self._field(choice, "delta", dict)
        if not delta:
            return None
        text = self._word(delta, "content")
        # vLLM's newer releases leave the second half of the name out.
        reasoning = self._word(delta, "reasoning_content") or self._word(delta, "reasoning")
        call = self._call(delta) if "tool_calls" in delta else ""
        if not (text or reasoning or call):
            return None
        self._text.append(text)
        self._reasoning.append(reasoning)
        return Piece(text, reasoning, call)

    def _word(self, delta: Mapping[str, Any], name: str) -> str:
        text = self._field(delta, name, str) if name in delta else None
        return valid_text(text) if text else ""

    def _call(self, delta: Mapping[str, Any]) -> str:
        words = []
        for call in self._field(delta, "tool_calls", list) or ():
            if not isinstance(call, dict):
                raise _not_an_endpoint(self._url)
            function = self._field(call, "function", dict) or {}
            words += [self._field(function, name, str) or "" for name in ("name", "arguments")]
        return valid_text("".join(words))

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
            engine_timings=self._engine_timings,
        )

    def _timings(self) -> Timings:
        if not self.piece_times:
            return Timings(None, time.monotonic() - self._asked_at, None)
        first_at, last_at = self.piece_times[0], self.piece_times[-1]
        tokens = (self._usage or {}).get("completion_tokens")
        seconds = last_at - first_at
        rate = (
            (tokens - 1) / seconds if isinstance(tokens, int) and tokens > 1 and seconds else None
        )
        return Timings(first_at - self._asked_at, last_at - self._asked_at, rate)


class EndpointClient:
    """Use as an async context manager. Any number of requests may be under way at once; whole
    answers leave their connections to later ones."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.url = normal_url(url)
        self.api_key = api_key
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._max_event_bytes = max_event_bytes
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # The default limit of 100 connections would make further requests wait here, unseen.
        kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
        self._session = self._session_over(kept)
        self._fresh = self._session_over(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    def _session_over(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            connector=connector,
            headers=self._headers,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()

    async def models(self) -> list[dict[str, Any]]:
        """What the endpoint serves.

        Raises:
            GatewayError: nothing answers there, or something that is not such an endpoint.
        """
        timeout = aiohttp.ClientTimeout(total=LIST_SECONDS)
        try:
            async with self._open.get(f"{self.url}/v1/models", timeout=timeout) as response:
                body = await _body(response)
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
        messages: Sequence[Mapping[str, Any]],
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
            response = await self._post(f"{self.url}/v1/chat/completions", request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _unreachable(self.url) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _broke_off(self.url) from error
        try:
            if response.status != 200:
                raise _refused(await self._refusal(response), response.status, self.url)
            yield AnswerStream(response, self.url, asked_at, self._max_event_bytes)
        finally:
            response.close()

    async def _post(self, address: str, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        """Once more, on a new connection, where one that was kept open turns out to be closed:
        llama.cpp's server ends some of them after an answer, and a request that meets that end is
        not read. Of several that it kept, it may have ended all."""
        try:
            return await self._open.post(address, json=body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            assert self._fresh is not None
            return await self._fresh.post(address, json=body)

    async def _refusal(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            body = await _body(response)
        except _BROKEN as error:
            raise _broke_off(self.url) from error
        return _json_object(body, self.url)

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


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The body, or as much of one as a sane endpoint would send."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            break
    return bytes(body)


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
    if code in ("missing_api_key", "invalid_api_key"):
        hint = "Set MOESTRO_API_KEY to one that is valid there: moestro keys create makes one."
    return GatewayError(
        error["message"],
        hint=hint if isinstance(hint, str) else None,
        code=code.replace("_", "-") if isinstance(code, str) else "endpoint-refused",
    )
