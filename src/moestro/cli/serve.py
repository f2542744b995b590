"""`moestro serve PLAN|MODEL`: the supervised service, for a terminal nobody looks at."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from moestro.cli.fronting import Facing, front_options
from moestro.cli.launch import Prepared, prepare, prepare_plan
from moestro.cli.options import address_options, engine_options, wishes_of
from moestro.cli.service_log import FaultHandler, ServiceLog
from moestro.cli.services import listen, log_path, registered
from moestro.cli.systemd_notify import notify
from moestro.errors import EngineError, MoestroError, UsageError
from moestro.planning import Wishes

Prepare = Callable[[], Prepared]


@click.command(name="serve")
@click.argument("target", metavar="PLAN|MODEL")
@engine_options
@address_options
@front_options
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How events are written to stderr, a line each.",
)
@click.option(
    "--log-requests",
    type=click.Choice(("off", "figures", "prompts")),
    default="off",
    show_default=True,
    help="Write a line for each request, too: who asked, how it ended, what it took; with "
    "“prompts” also what it said.",
)
@click.option("--anyway", is_flag=True, help="Start despite a finding of severity fail.")
def command(
    target: str,
    host: str,
    port: int,
    log_format: str,
    log_requests: str,
    anyway: bool,
    **options: Any,
) -> int:
    """Serve until SIGTERM: a MODEL with settings for this machine, or a PLAN (what `moestro plan
    MODEL --json` wrote) with its own.

    An engine that ends is followed by the next one, and no request is lost. SIGHUP reads the plan
    or the model again and replaces the engine; SIGTERM lets answers in progress finish. Tells
    systemd when it is ready (Type=notify).
    """
    from moestro.gateway.server import run

    facing = Facing.taken_from(options)
    wishes = wishes_of(options)
    plan = Path(target) if _is_plan(target) else None
    if plan is not None and wishes != Wishes():
        raise UsageError("A plan has its settings already.", hint="Leave out the other settings.")
    log = ServiceLog(as_json=log_format == "json")
    listener = listen(host, port)
    try:
        where = facing.address(listener)

        def prepared() -> Prepared:
            if plan is not None:
                return prepare_plan(plan, anyway=anyway, address=where)
            return prepare(target, wishes, anyway=anyway, address=where)

        first = prepared()
    except BaseException:
        listener.close()
        raise
    faults = FaultHandler(log)
    logging.getLogger().addHandler(faults)
    try:
        run(lambda: _serve(first, prepared, target, listener, facing, log, log_requests))
    finally:
        logging.getLogger().removeHandler(faults)
        log.close()
    return 0


def _is_plan(target: str) -> bool:
    """A file that begins as JSON does; models do not."""
    path = Path(target)
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except OSError:
        return target.endswith(".json")


async def _serve(
    prepared: Prepared,
    again: Prepare,
    target: str,
    listener: socket.socket,
    facing: Facing,
    log: ServiceLog,
    log_requests: str,
) -> None:
    from moestro.cli.about import about
    from moestro.cli.keeping import Served, service_for
    from moestro.engine.log import BoundedFile
    from moestro.gateway.board import Board
    from moestro.gateway.request_log import RequestLog
    from moestro.gateway.server import base_url, serve

    url = base_url(listener)
    log_file = log_path(int(listener.getsockname()[1]))
    log.file = BoundedFile(log_file)
    served = Served(prepared)
    service = service_for(served, facing, log.note, log_file)
    board = Board(service, about(prepared))
    ready = False
    one_at_a_time = asyncio.Lock()

    async def reload() -> None:
        if not ready:
            raise EngineError(
                "The first engine still loads; it is not loaded again before.",
                hint="Try again when it is ready.",
            )
        async with one_at_a_time:
            await load_again()

    async def load_again() -> None:
        notify("RELOADING=1")
        before = served.now
        try:
            served.now = fresh = await asyncio.to_thread(again)
            await service.replace(facing.request(fresh), because="it was loaded again")
            board.about = about(fresh)
            renew(fresh.name, fresh.files)
        except MoestroError as error:
            served.now = before
            log.warn(f"not loaded again, the engine stays as it was: {error.sentence}")
            raise
        finally:
            notify("READY=1")

    async def on_hangup() -> None:
        with contextlib.suppress(MoestroError):  # told by then
            await reload()

    def on_ready(at: str) -> None:
        nonlocal ready
        ready = True
        log.say("ready", f"{service.model.name} at {at}/v1")
        notify("READY=1\nSTATUS=ready")

    def on_drain() -> None:
        notify("STOPPING=1\nSTATUS=answers in progress finish")
        log.say("draining", "answers in progress finish, no new ones are taken")

    front = facing.front(listener, log.warn, board, reload)
    if log_requests != "off":
        front = replace(front, log=RequestLog(log.request, prompts=log_requests == "prompts"))
    with registered(url, prepared.name, target, log_file, facing.secret, prepared.files) as renew:
        await serve(
            service, listener, front, on_ready=on_ready, on_drain=on_drain, on_hangup=on_hangup
        )
    log.say("stopped", "as asked")
