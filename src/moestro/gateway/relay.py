"""One request carried to an engine, and to the next one if that ends, and its answer back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moestro.client.sse import EventSplitter, EventTooLarge, event_data
from moestro.client.text import json_bytes
from moestro.gateway import failure
from moestro.gateway.call import Call
from moestro.gateway.defaults import MAX_ANSWER_BYTES
from moestro.gateway.engine_link import EngineLink
from moestro.gateway.exchange import Exchange, LinkBroken
from moestro.gateway.failure import Failure, RequestFailed
from moestro.gateway.life import FROM_OUTSIDE, Life
from moestro.gateway.meters import Meters, RequestMeter
from moestro.gateway.outlet import ClientTooSlow, Outlet, as_long_as_wanted, give_up
from moestro.gateway.queue import ALONE_FROM, Ticket
from moestro.gateway.service import Service
from moestro.gateway.transcript import Api, Diverged, Transcript

MAX_ERROR_BYTES = 1 << 20
EVENT_STREAM = "text/event-stream"

MOST_CRASHES = ALONE_FROM + 1
"""Engines that may crash under one request; the last one has nothing else to do."""

MOST_LOST = 50
"""Engines that one request may lose without a word between, for whatever reasons. Within
`MOST_LOST_SECONDS` it may lose more: on a machine that is too busy an engine lives briefly."""

MOST_LOST_SECONDS = 300.0

MOST_BREAKS = 3
"""How often a living engine may break its connection under one request."""

FAST_SECONDS = 0.005
"""A stream whose events come closer together is passed on with the bars of its engine's link, a
few events at a time. One by one they would take as much of a processor as a thread of the engine
has to spare."""

_STREAM_HEADERS = [
    (b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the stream otherwise
]
_BROKEN = (OSError, EventTooLarge)


class Relay(Response):
    """Asks the engine while it watches whether the client is still there.

    A client that leaves takes its upstream connection with it, which is how the engine learns that
    it can stop generating. A client that reads slowly holds up nobody: its answer is collected.
    """

    def __init__(
        self,
        service: Service,
        path: str,
        call: Call,
        api: Api | None,
        *,
        key: str = "",
        seconds: float | None = None,
        meter: RequestMeter | None = None,
    ) -> None:
        # Like Starlette's own streaming response this one has no body to hand to its parent.
        self.status_code = 200
        self.background = None
        self._service = service
        self._path = path
        self._call = call
        self._transcript = (
            Transcript(api, call.body, call.data) if call.stream and api is not None else None
        )
        self._form = failure.form_for(path)
        self._completed = (
            api.form(call.data, service.model.name, int(time.time()))
            if api is not None and api.form is not None
            else None
        )
        self._ticket = Ticket(key)
        self._seconds = seconds
        self._meter = meter if meter is not None else Meters().request()
        self._breaks = self._lost = 0
        self._lost_first = 0.0
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await as_long_as_wanted(self._work(send), scope)
        except ClientTooSlow:
            await give_up(scope)
        finally:
            self._meter.left()

    async def _work(self, send: Send) -> None:
        async with Outlet(send) as out:
            try:
                if self._seconds is None:
                    await self._carry(out)
                else:
                    await self._carry_within(self._seconds, out)
            except RequestFailed as refused:
                self._fail(refused.failure, out)
            except Diverged:
                self._fail(failure.diverged(), out)

    async def _carry_within(self, seconds: float, out: Outlet) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._carry(out)
        except TimeoutError:
            if not limit.expired():
                raise
            raise RequestFailed(failure.took_too_long(seconds)) from None

    async def _carry(self, out: Outlet) -> None:
        while not await self._attempt(out):
            pass

    async def _attempt(self, out: Outlet) -> bool:
        """Whether the client has its answer: False if an engine broke off and another may do it.

        Raises:
            RequestFailed, Diverged: there will be none.
        """
        async with self._service.queue.turn(self._ticket) as life:
            self._meter.turn()
            try:
                body = await self._body(life.link)
                streams = self._transcript is not None
                async with life.link.post(self._path, body, streams=streams) as answer:
                    failed = answer.status >= 400
                    if answer.content_type == EVENT_STREAM and not failed:
                        await self._stream(life, answer, out)
                        return True
                    most = MAX_ERROR_BYTES if failed else MAX_ANSWER_BYTES
                    whole = await answer.rest(most)
                    if len(whole) == most and not failed:
                        raise RequestFailed(failure.answer_too_large(most))
            except _BROKEN:
                whole = None
            except Diverged:
                self._replay_failed()
                return False
        if whole is None:
            await self._broken(life)
            return False
        if failed:
            raise RequestFailed(failure.from_engine(answer.status, whole))
        if self._completed is not None:
            whole = self._completed.whole(whole)
        self._answer(out, answer.status, {"content-type": "application/json"}, whole)
        self._meter.answered(whole)
        return True

    async def _body(self, link: EngineLink) -> bytes:
        if self._transcript is None:
            return self._call.body
        if not self._ticket.interrupted:
            return self._transcript.first_body()

        async def ask(path: str, data: Mapping[str, Any]) -> Any:
            async with link.post(path, json_bytes(data)) as answer:
                said = await answer.rest()
            with contextlib.suppress(ValueError):
                return json.loads(said) if answer.status == 200 else None

        body = await self._transcript.resume(ask)
        self._meter.resumes(self._transcript.had_tokens)
        return body

    def _replay_failed(self) -> None:
        """Raises Diverged: the other way was tried as well."""
        if self._transcript is None or self._transcript.diverged:
            raise Diverged
        self._transcript.replay_failed()

    async def _broken(self, life: Life) -> None:
        """Whose fault it was, and whether it is worth another try.

        Raises:
            RequestFailed: it is not.
        """
        self._ticket.interrupted = True
        self._meter.broke()
        self._lost += 1
        now = time.monotonic()
        if self._lost == 1:
            self._lost_first = now
        if self._lost >= MOST_LOST and now - self._lost_first >= MOST_LOST_SECONDS:
            raise RequestFailed(self._service.refusal() or failure.broke_off())
        ended = await self._service.end_of(life)
        if ended is None:
            self._breaks += life.ready  # one that is told to end is slow to do it
            if self._breaks >= MOST_BREAKS:
                raise RequestFailed(failure.broke_off())
        elif life.hung or (
            life.crashed and (ended.out_of_memory or ended.signal not in FROM_OUTSIDE)
        ):
            self._ticket.crashes += 1
            if self._ticket.crashes >= MOST_CRASHES:
                raise RequestFailed(failure.ends_engines(self._ticket.crashes))

    async def _stream(self, life: Life, answer: Exchange, out: Outlet) -> None:
        """Passes events on as they become whole, up to the last one or an error event.

        Raises:
            OSError, EventTooLarge: the stream ended without either.
        """
        assert self._transcript is not None
        splitter = EventSplitter()
        if not self._started:
            self._started = True
            out.start(answer.status, _STREAM_HEADERS)
        transcript = self._transcript
        before: float | None = None
        while chunk := await answer.piece():
            events = splitter.feed(chunk)
            life.heard_at = self._meter.heard(events)
            said: list[bytes] = []
            for event in events:
                try:
                    error = _error_in(event)
                    if error is not None:
                        raise RequestFailed(error)
                    said.append(transcript.feed(event))
                except (Diverged, RequestFailed):
                    out.write(self._shown(said))  # it counts as said
                    raise
                if transcript.ends_with(event):
                    out.end(self._shown([*said, transcript.finish()]))
                    self._meter.streamed(cut=self._completed is not None and self._completed.cut)
                    return
            shown = self._shown(said)
            out.write(shown)
            if shown:
                self._lost = 0
            if out.full:
                await out.room()
            if before is not None:
                fast = life.heard_at - before < FAST_SECONDS * len(events)
                life.link.gather(answer, fast)
            before = life.heard_at
        raise LinkBroken("The stream ended without its last event.")

    def _shown(self, events: Sequence[bytes]) -> bytes:
        said = b"".join(events)
        return self._completed.events(said) if self._completed is not None and said else said

    def _answer(self, out: Outlet, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole one."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        raw.append((b"content-length", str(len(body)).encode()))
        self._started = True
        out.start(status, raw)
        out.end(body)

    def _fail(self, error: Failure, out: Outlet) -> None:
        self._meter.failed(error.code)
        if self._started:
            out.end(error.event(self._form))
            return
        self._answer(out, error.status, error.headers(), error.body(self._form))


def _error_in(event: bytes) -> Failure | None:
    """What an event says of an engine that could not go on."""
    named = event.startswith(b"event: error")
    if not named and b'{"error"' not in event:
        return None
    data = event_data(event)
    if data is None or not (named or data.startswith(b'{"error"')):
        return None
    with contextlib.suppress(ValueError):
        said = json.loads(data)
        # In Anthropic's form the engine leaves the envelope out.
        error = said.get("error", said) if isinstance(said, dict) else None
        data = json_bytes({"error": error})
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        return failure.from_engine(status, data)
    return None
