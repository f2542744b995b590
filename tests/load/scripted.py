"""An OpenAI endpoint on loopback that does what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoint:
    """`answer` handles chat requests; `bodies` are those that came, `most` how many were under way
    at once, `connections` the clients' ports."""

    def __init__(self, answer: Handler) -> None:
        self.answer = answer
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.ports: set[int] = set()
        self.active = 0
        self.most = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        assert request.transport is not None
        self.ports.add(request.transport.get_extra_info("peername")[1])
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            return await self.answer(request)
        finally:
            self.active -= 1


@asynccontextmanager
async def endpoint(answer: Handler, models: Sequence[str] = ("m",)) -> AsyncIterator[Endpoint]:
    place = Endpoint(answer)

    async def listing(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in models]})

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", place.chat)
    app.router.add_get("/v1/models", listing)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        place.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield place
    finally:
        await runner.cleanup()


def answering(
    tokens: int = 3,
    *,
    pause: float = 0.0,
    usage: dict[str, Any] | None = None,
    timings: dict[str, Any] | None = None,
    field: str = "content",
) -> Handler:
    """Streams so many pieces; `usage` None counts truly, {} counts nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await streaming(request)
        for number in range(tokens):
            await asyncio.sleep(pause)
            await send(response, {"choices": [{"delta": {field: f" {number}"}}]})
        await send(response, {"choices": [{"delta": {}, "finish_reason": "length"}]})
        counted = {"prompt_tokens": 10, "completion_tokens": tokens} if usage is None else usage
        last = {"choices": [], **({"usage": counted} if counted else {}),
                **({"timings": timings} if timings else {})}  # fmt: skip
        await send(response, last)
        await response.write(b"data: [DONE]\n\n")
        return response

    return answer


async def streaming(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    return response


async def send(response: web.StreamResponse, data: object) -> None:
    await response.write(f"data: {json.dumps(data)}\n\n".encode())
