"""An OpenAI endpoint that computes nothing and keeps time: the truth for `bench.load_check`.

    python -m bench.paced_endpoint 200 20     # first token after 200 ms, then one each 20 ms

Prints its address. Each event is sent at its own moment, counted from the request's arrival, so
that lateness does not add up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping

from aiohttp import web

_WORD = {"choices": [{"index": 0, "delta": {"content": " ok"}, "finish_reason": None}]}
_END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}


def event(data: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps({'id': 'c', 'model': 'paced', **data})}\n\n".encode()


def app(first_seconds: float, gap_seconds: float) -> web.Application:
    async def complete(request: web.Request) -> web.StreamResponse:
        arrived_at = time.monotonic()
        body = await request.json()
        tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        word = event(_WORD)
        for number in range(tokens):
            due = arrived_at + first_seconds + number * gap_seconds
            await asyncio.sleep(max(due - time.monotonic(), 0))
            await response.write(word)
        await response.write(event(_END))
        prompt = len(str(body.get("messages"))) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens,
                 "total_tokens": prompt + tokens}  # fmt: skip
        await response.write(event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "paced", "object": "model"}]})

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    served = web.Application(client_max_size=1 << 26)
    served.router.add_post("/v1/chat/completions", complete)
    served.router.add_get("/v1/models", models)
    served.router.add_get("/health", health)
    return served


async def main() -> None:
    first_ms, gap_ms = map(float, sys.argv[1:3])
    runner = web.AppRunner(app(first_ms / 1000, gap_ms / 1000))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
