"""A proxy as one writes it first: Starlette in front, httpx behind, the body streamed through.

python -m bench.serve.plain_proxy URL KEY
"""

from __future__ import annotations

import json
import socket
import sys

import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


def app(url: str, key: str) -> Starlette:
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    client = httpx.AsyncClient(base_url=url, timeout=None, limits=limits)

    async def complete(request: Request) -> StreamingResponse:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        asked = client.build_request(
            "POST", "/v1/chat/completions", content=await request.body(), headers=headers
        )
        answer = await client.send(asked, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            media_type=answer.headers.get("content-type"),
            background=BackgroundTask(answer.aclose),
        )

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(app(*sys.argv[1:3]), log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
