"""`moestro up [MODEL]`: inspect, choose settings, start, say how to call it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.about import about
from moestro.cli.fronting import Facing, front_options
from moestro.cli.keeping import Served, service_for
from moestro.cli.launch import Prepared, prepare
from moestro.cli.options import address_options, engine_options, json_option, wishes_of
from moestro.cli.services import listen, registered
from moestro.client.endpoint import Answer, EndpointClient
from moestro.engine import Engine, EngineState
from moestro.engine.log import WriterThread
from moestro.errors import MoestroError
from moestro.words import plain

if TYPE_CHECKING:
    from moestro.gateway.service import Note, Service

FIRST_PROMPT = "Tell me a short story."
FIRST_TOKENS = 48
"""Enough to time decoding; a large model on a CPU says them in seconds."""


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What the service did with its first request. `after_start_seconds` counts from the start of
    the command to the first token; None when there was none."""

    after_start_seconds: float | None
    answer: Answer | None

    @property
    def tokens_per_second(self) -> float | None:
        return None if self.answer is None else self.answer.tokens_per_second


@click.command(name="up")
@click.argument("model", default="demo")
@engine_options
@address_options
@front_options
@json_option
@click.option("--anyway", is_flag=True, help="Start despite a finding of severity fail.")
def command(model: str, host: str, port: int, as_json: bool, anyway: bool, **options: Any) -> int:
    """Serve MODEL (the demo model if none is given) until Ctrl-C.

    Reads the file, chooses settings for this machine and says why, starts the engine, and puts an
    OpenAI-compatible endpoint in front of it.
    """
    from moestro.gateway.server import run

    facing = Facing.taken_from(options)
    # The port comes first: a download or a load that ends at a taken port is a waste.
    listener = listen(host, port)
    try:
        where = facing.address(listener)
        prepared = prepare(model, wishes_of(options), anyway=anyway, address=where)
    except BaseException:
        listener.close()
        raise
    if not as_json:
        from rich.console import Console

        from moestro.cli.show_plan import show_plan

        show_plan(prepared.plan, Console(highlight=False), brief=True)
    return run(lambda: _up(prepared, model, listener, facing, as_json=as_json))


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


MOST_UNWRITTEN = 1 << 20


def _write_lines(lines: list[str]) -> None:
    """From a thread: a terminal may be closed, or stopped with Ctrl-S, and the service goes on."""
    with contextlib.suppress(OSError, ValueError):
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr, flush=True)


async def _up(
    prepared: Prepared, target: str, listener: socket.socket, facing: Facing, *, as_json: bool
) -> int:
    from moestro.gateway.board import Board
    from moestro.gateway.server import base_url, serve

    later = WriterThread(_write_lines, MOST_UNWRITTEN)

    def tell(text: str) -> None:
        later.put(text, len(text))

    def note(told: Note) -> None:
        """Neither the first start, which is shown elsewhere, nor the end that was asked for."""
        started = told.engine == 1 and told.state in (EngineState.STARTING, EngineState.READY)
        ended = service.stopping and told.state in (EngineState.DRAINING, EngineState.STOPPED)
        if not started and not ended:
            tell(plain(told.sentence))

    service = service_for(Served(prepared), facing, note)
    front = facing.front(listener, tell, Board(service, about(prepared)))
    following: list[asyncio.Task[None]] = []

    def on_ready(url: str) -> None:
        key = facing.secret
        following.append(asyncio.create_task(_announce(prepared, service, url, key, as_json)))
        following[0].add_done_callback(_stop_on_failure)

    try:
        with registered(
            base_url(listener), prepared.name, target, None, facing.secret, prepared.files
        ):
            await serve(service, listener, front, on_ready=on_ready)
    finally:
        for task in following:
            task.cancel()
        ended = await asyncio.gather(*following, return_exceptions=True)
        later.close(1.0)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome
    return 0


def _stop_on_failure(task: asyncio.Task[None]) -> None:
    """A service whose address nobody could be told is of no use: end it as Ctrl-C would."""
    if not task.cancelled() and task.exception() is not None:
        os.kill(os.getpid(), signal.SIGINT)


async def _announce(
    prepared: Prepared, service: Service, url: str, key: str, as_json: bool
) -> None:
    engine = service.engine
    assert engine is not None
    try:
        first = await _first_answer(url, key)
    except MoestroError as error:
        if service.stopping:
            return
        to_stderr(f"warning: the first request failed: {error.sentence}")
        first = FirstAnswer(None, None)
    _remember(prepared, engine, first)
    if as_json:
        print(json.dumps(_summary(prepared, engine, url, first), ensure_ascii=False), flush=True)
        return
    from moestro.cli.show_up import show_service

    show_service(prepared, engine, url, first)


def _remember(prepared: Prepared, engine: Engine, first: FirstAnswer) -> None:
    """Later forecasts learn from what this run showed."""
    if first.answer is None:
        return
    from moestro.cli.observe import observation
    from moestro.cli.planning import remember

    run = observation(prepared, engine.pid, first.answer)
    trouble = remember(prepared.identity, run) if run is not None else None
    if trouble is not None:
        to_stderr(f"warning: {trouble.title}: {trouble.evidence}")


async def _first_answer(url: str, key: str) -> FirstAnswer:
    options = {"max_tokens": FIRST_TOKENS, "temperature": 0}
    messages = [{"role": "user", "content": FIRST_PROMPT}]
    first_at: float | None = None
    async with (
        EndpointClient(url, api_key=key) as client,
        client.chat(messages, model=None, options=options) as stream,
    ):
        async for _ in stream:
            first_at = first_at or time.time()
        answer = stream.answer
    after = None if first_at is None else first_at - _command_started_at()
    return FirstAnswer(after, answer)


def _command_started_at() -> float:
    """When this process began, before Python itself was loaded. Seconds since the epoch."""
    import psutil

    return float(psutil.Process().create_time())


def _summary(prepared: Prepared, engine: Engine, url: str, first: FirstAnswer) -> dict[str, Any]:
    return {
        "url": f"{url}/v1",
        "model": prepared.name,
        "path": str(prepared.path),
        "engine": {
            **prepared.plan.engine.to_json(),
            "pid": engine.pid,
            "started_seconds": engine.started_seconds,
        },
        "settings": prepared.plan.settings.to_json(),
        "reasons": [reason.to_json() for reason in prepared.plan.reasons],
        "plan": prepared.plan.to_json(),
        "started_at": _command_started_at(),
        "first_token_seconds": first.after_start_seconds,
        "decode_tokens_per_second": first.tokens_per_second,
        "findings": [finding.to_json() for finding in prepared.findings],
    }
