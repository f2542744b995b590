"""`moestro stop`: ends a service, letting its answers finish."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import Any

import click

from moestro.cli.options import json_option
from moestro.cli.services import lives, the_one
from moestro.errors import MoestroError

WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.05


@click.command(name="stop")
@click.option("--port", type=int, metavar="N", default=None, help="Which one, if several run.")
@click.option("--now", is_flag=True, help="Do not let answers in progress finish.")
@json_option
def command(port: int | None, now: bool, as_json: bool) -> int:
    """End the service of this user that runs here."""
    record = the_one(port)
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(record.pid, signal.SIGINT if now else signal.SIGTERM)
    until = time.monotonic() + WAIT_SECONDS
    while lives(record):
        if time.monotonic() > until:
            raise MoestroError(
                f"The service at {record.url} still runs after {WAIT_SECONDS:g} s.",
                hint=f"moestro stop --now, or kill -9 {record.pid}: its engine ends with it.",
                code="still-running",
            )
        time.sleep(LOOK_SECONDS)
    said: dict[str, Any] = {"stopped": record.url, "pid": record.pid}
    print(json.dumps(said) if as_json else f"{record.url} has stopped.")
    return 0
