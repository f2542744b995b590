"""Moestro's gateway in a process of its own, and how to reach its engine without it.

    python -m bench.serve.gateway stub URL              # an engine that runs elsewhere
    python -m bench.serve.gateway model MODEL STREAMS CONTEXT   # as `moestro up` starts it

Prints one line of JSON: `url` and `secret` of the gateway, `engine` and `key` of the engine behind
it, `pids` of the gateway and the engine (None if it is not the gateway's).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from moestro.cli.fronting import Facing
from moestro.cli.keeping import Served, service_for
from moestro.cli.launch import prepare
from moestro.engine import EngineExit, EngineRequest, EngineState
from moestro.gateway.board import Board
from moestro.gateway.server import bind, run, serve
from moestro.gateway.service import Service
from moestro.planning import Settings, Wishes

MOST_STREAMS = 64


class OutsideEngine:
    """An engine that somebody else started. Follows `moestro.engine.Engine`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.api_key = "none"
        self.pid: int | None = None
        self.state = EngineState.STARTING
        self.started_seconds: float | None = None
        self.stream_context: int | None = None
        self.takes: tuple[str, ...] = ("text",)
        self._ended = asyncio.Event()

    async def start(self, timeout_seconds: float | None = None) -> None:
        self.state = EngineState.READY
        self.started_seconds = 0.0

    async def wait(self) -> EngineExit:
        await self._ended.wait()
        return EngineExit("Stopped as asked.", 0, None)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        self.state = EngineState.STOPPED
        self._ended.set()

    def log_tail(self, lines: int = 50) -> tuple[str, ...]:
        return ()


def outside(address: str) -> Service:
    settings = Settings(context=4096, parallel=MOST_STREAMS, threads=1)
    request = EngineRequest(Path("/models/default.gguf"), "default", settings)
    return Service(lambda _request: OutsideEngine(address), request)


def own(model: str, streams: int, context: int, facing: Facing) -> Service:
    wishes = Wishes(parallel=streams, context=context, untuned=True)
    return service_for(Served(prepare(model, wishes)), facing, lambda _note: None)


async def _main(arguments: list[str]) -> None:
    kind, what, *rest = arguments
    facing = Facing()
    if kind == "stub":
        service = outside(what)
    else:
        streams, context = map(int, rest)
        service = own(what, streams, context, facing)
    listener = bind(port=0)
    front = facing.front(listener, lambda text: print(text, file=sys.stderr), Board(service))

    def tell(url: str) -> None:
        engine = service.engine
        assert engine is not None
        found = {
            "url": url,
            "secret": facing.secret,
            "engine": engine.address,
            "key": engine.api_key,
            "pids": [os.getpid(), engine.pid],
            "settings": service.request.settings.to_json(),
            "path": str(service.request.model),
        }
        print(json.dumps(found), flush=True)

    await serve(service, listener, front, on_ready=tell)


if __name__ == "__main__":
    run(lambda: _main(sys.argv[1:]))
