"""An engine without a model: real HTTP on loopback, and behaviour that a test chooses.

What it does with a request stands in the request itself, under `stub` (or else in `script`):

    {"stub": {"tokens": 3, "pause": 0.01}}         so many events, with a pause before each
    {"stub": {"die_after": 2}}                     the process "ends" after two events; with
                                                   `lives` 3 the next two do so as well
    {"stub": {"die_each": 60}}                     after each event, this engine and the next 59
    {"stub": {"crash_after": 2}}                   the same, by itself instead of killed
    {"stub": {"cut_after": 2}}                     the connection breaks, the engine lives on
    {"stub": {"close_after": 2}}                   the connection ends politely, in the body
    {"stub": {"stop_after": 2}}                    a proper end of the body, but without [DONE]
    {"stub": {"error_after": 2}}                   an error event in the stream; with `named`, as
                                                   the engine writes it for Anthropic's clients
    {"stub": {"bytes": 1}}                         the answer is sent in pieces of so many bytes
    {"stub": {"status": 400, "body": "…"}}         this answer
    {"stub": {"half": true}}                       half of a whole answer, and the connection breaks
    {"stub": {"hang": true}}                       nothing, for ever
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from moestro.client.text import json_bytes
from moestro.engine import EngineExit, EngineRequest, EngineState
from moestro.errors import EngineStartFailed
from moestro.planning import Settings

KEY = "stub-engine-key"
WORDS = ("Grüß", " Gott", " 🦙", " 日本", "語", " ok")


def stub_request(
    name: str = "stub-model", model: str = "/models/stub-file.gguf", parallel: int = 2
) -> EngineRequest:
    settings = Settings(context=512, parallel=parallel, threads=1)
    return EngineRequest(model=Path(model), name=name, settings=settings)


class StubEngine:
    """Follows `moestro.engine.Engine`."""

    def __init__(
        self, *, start_seconds: float = 0.0, stop_seconds: float = 0.0, fails: str | None = None
    ) -> None:
        self.state = EngineState.STARTING
        self.pid: int | None = None
        self.address = ""
        self.api_key = KEY
        self.started_seconds: float | None = None
        self.stream_context: int | None = None
        self.takes: tuple[str, ...] = ("text",)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.script: dict[str, Any] = {}
        self.ordinal = 0
        self.active = 0
        self.cancelled = 0
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._fails = fails
        self._end: asyncio.Event = asyncio.Event()
        self._exit: EngineExit | None = None
        self._runner: web.AppRunner | None = None
        self._transports: set[asyncio.Transport] = set()

    async def start(self, timeout_seconds: float | None = None) -> None:
        waiting = asyncio.create_task(self._end.wait())
        await asyncio.wait((waiting,), timeout=self._start_seconds)
        waiting.cancel()
        if self._end.is_set():
            raise EngineStartFailed("The engine was stopped while it loaded.")
        if self._fails:
            await self._finish(EngineState.FAILED, EngineExit(self._fails, 1, None))
            raise EngineStartFailed(self._fails)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        for other in ("messages", "messages/count_tokens", "responses", "embeddings"):
            app.router.add_post(f"/v1/{other}", self._complete)
        app.router.add_post("/apply-template", self._template)
        app.router.add_post("/tokenize", self._tokenize)
        # Handlers are cancelled when their client goes: that is what a test looks for.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.state = EngineState.READY
        self.started_seconds = self._start_seconds
        self.stream_context = 480

    async def wait(self) -> EngineExit:
        await self._end.wait()
        assert self._exit is not None
        return self._exit

    async def stop(self, grace_seconds: float = 5.0) -> None:
        if self._stop_seconds:  # its connections break before it has ended
            for transport in tuple(self._transports):
                transport.abort()
            await asyncio.sleep(self._stop_seconds)
        await self._finish(EngineState.STOPPED, EngineExit("Stopped as asked.", 0, None))

    async def kill(self, sentence: str = "The engine was killed (SIGKILL).") -> None:
        """What `kill -9` does: every connection breaks, and the exit is noticed."""
        await self._finish(EngineState.FAILED, EngineExit(sentence, None, "SIGKILL"))

    async def crash(self, sentence: str = "The engine crashed (SIGSEGV).") -> None:
        """By itself, as opposed to `kill`."""
        await self._finish(EngineState.FAILED, EngineExit(sentence, None, "SIGSEGV"))

    async def starve(self) -> None:
        """The kernel takes its memory."""
        sentence = "The engine was killed: the machine ran out of memory."
        exit_ = EngineExit(sentence, None, "SIGKILL", out_of_memory=True)
        await self._finish(EngineState.FAILED, exit_)

    async def _finish(self, state: EngineState, exit_: EngineExit) -> None:
        if self._exit is None:
            self._exit = exit_
            self.state = state
        self._end.set()
        for transport in tuple(self._transports):
            transport.abort()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _template(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        data = await request.json()
        messages = data["messages"]
        prompt = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        if messages[-1]["role"] != "assistant":
            prompt += "<assistant>"
        return web.json_response({"prompt": prompt})

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        """A token of each character."""
        self._check_key(request)
        data = await request.json()
        return web.json_response({"tokens": [ord(one) for one in data["content"]]})

    def log_tail(self, lines: int = 50) -> tuple[str, ...]:
        return ()

    def _check_key(self, request: web.Request) -> None:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise web.HTTPUnauthorized(text='{"error": {"message": "Invalid API Key"}}')

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        data = await request.json()
        self.requests.append(data)
        self.headers.append(dict(request.headers))
        assert request.transport is not None
        self._transports.add(request.transport)
        self.active += 1
        try:
            return await self._play(request, data, data.get("stub", self.script))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1
            self._transports.discard(request.transport)

    async def _play(
        self, request: web.Request, data: dict[str, Any], script: dict[str, Any]
    ) -> web.StreamResponse:
        if script.get("hang"):
            await asyncio.Event().wait()
        if "status" in script:
            return await self._answer(request, script["status"], script)
        if script.get("half"):
            return await self._answer(request, 200, {"body": json.dumps(whole("ab")), **script})
        count = script.get("tokens", 3)
        begun = _words_in(data)
        if not data.get("stream"):
            await asyncio.sleep(script.get("pause", 0) * count)
            text = "".join(WORDS[index % len(WORDS)] for index in range(count))
            return web.json_response(whole(text), headers={"X-Engine-Secret": "1"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for index in range(begun, count):
            await asyncio.sleep(script.get("pause", 0))
            if begun < index and self.ordinal < script.get("die_each", 0):
                asyncio.get_running_loop().call_soon(asyncio.ensure_future, self.kill())
                await asyncio.sleep(60)
            for how, end in (("die_after", self.kill), ("crash_after", self.crash)):
                if index == script.get(how) and self.ordinal < script.get("lives", 1):
                    asyncio.get_running_loop().call_soon(asyncio.ensure_future, end())
                    await asyncio.sleep(60)
            if index == script.get("cut_after"):
                await response.write(b'data: {"half of an ev')
                assert request.transport is not None
                request.transport.abort()
                return response
            if index == script.get("close_after"):
                assert request.transport is not None
                request.transport.close()
                await asyncio.sleep(60)
            if index == script.get("stop_after"):
                return response
            if index == script.get("error_after"):
                error = {"code": 500, "message": "out of slots", "type": "server_error"}
                event = f"data: {json.dumps({'error': error})}\n\n"
                if script.get("named"):
                    event = f"event: error\ndata: {json.dumps(error)}\n\n"
                await response.write(event.encode())
                return response
            await self._send(response, chunk(WORDS[index % len(WORDS)]), script.get("bytes"))
        await self._send(response, b"data: [DONE]\n\n", script.get("bytes"))
        return response

    async def _answer(
        self, request: web.Request, status: int, script: dict[str, Any]
    ) -> web.StreamResponse:
        body = script.get("body", "").encode()
        response = web.StreamResponse(
            status=status,
            headers={"content-type": "application/json", "content-length": str(len(body))},
        )
        await response.prepare(request)
        size = script.get("bytes") or len(body) or 1
        assert request.transport is not None
        for start in range(0, len(body), size):
            if script.get("half") and start:
                request.transport.abort()
                break
            await response.write(body[start : start + size])
            await asyncio.sleep(0.01 if size < len(body) else 0)  # a segment of its own
        return response

    async def _send(self, response: web.StreamResponse, event: bytes, size: int | None) -> None:
        size = size or len(event)
        for start in range(0, len(event), size):
            await response.write(event[start : start + size])
            await asyncio.sleep(0)


class StubMaker:
    """Makes an engine for each life, as `Service` asks for one. `plans` are arguments of the next
    ones; later ones are plain. What each one does with requests stands in `script`."""

    def __init__(self, *plans: dict[str, Any]) -> None:
        self.made: list[StubEngine] = []
        self.asked: list[EngineRequest] = []
        self.plans = list(plans)
        self.scripts: list[dict[str, Any]] = []

    def __call__(self, request: EngineRequest) -> StubEngine:
        self.asked.append(request)
        engine = StubEngine(**(self.plans.pop(0) if self.plans else {}))
        engine.ordinal = len(self.made)
        engine.script = self.scripts.pop(0) if self.scripts else {}
        self.made.append(engine)
        return engine


def maker_of(engine: StubEngine) -> Callable[[EngineRequest], StubEngine]:
    """Makes this one, and after it plain ones with its script."""
    made: list[StubEngine] = []

    def make(_request: EngineRequest) -> StubEngine:
        next_one = StubEngine() if made else engine
        next_one.script, next_one.ordinal = engine.script, len(made)
        made.append(next_one)
        return next_one

    return make


def _words_in(data: dict[str, Any]) -> int:
    """How many of its words an answer has that somebody else began."""
    messages = data.get("messages") or [{}]
    said = messages[-1].get("content") if messages[-1].get("role") == "assistant" else ""
    number, text = 0, ""
    while len(text) < len(said):
        text += WORDS[number % len(WORDS)]
        number += 1
    assert text == said
    return number


def chunk(text: str) -> bytes:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub-model"}
    return b"data: " + json_bytes(data | {"choices": [delta]}) + b"\n\n"


def whole(text: str) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "stub-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }
