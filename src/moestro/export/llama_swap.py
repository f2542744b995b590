"""llama-swap's configuration: it starts llama-server when a request needs it.

llama-swap splits a command as a shell would, without being one: quotes and backslashes work, and
`${NAME}` is a macro of its own even within quotes. A line that starts with `#` is dropped.
"""

from __future__ import annotations

import json
import shlex

from moestro.export.deployment import Deployment
from moestro.export.flags import PROGRAM, alias, flags, unexpressed
from moestro.export.heading import comment, heading
from moestro.export.target import Exported, File, Target

FILE = "llama-swap.yaml"
CHILD_HOST = "127.0.0.1"
PORT_MACRO = "${PORT}"

DEFAULT_WAIT_SECONDS = 120
SLOW_DISK_BYTES_PER_SECOND = 250e6
"""A SATA disk on a bad day; a model is read once before it answers."""

DEFAULT_CONCURRENCY = 10
"""Requests beyond this get 429 where nothing else is said; llama-server queues them."""


def export(deployment: Deployment) -> Exported:
    left = unexpressed(deployment)
    name = json.dumps(alias(deployment), ensure_ascii=False)  # a double-quoted scalar of YAML too
    command = [PROGRAM]
    for flag, value in flags(deployment, host=CHILD_HOST):
        if flag == "--port":
            command.append(f"{flag} {PORT_MACRO}")
        else:
            command.append(flag if value is None else f"{flag} {word(value)}")
    lines = [
        "# Seconds until the model must be loaded, from a slow disk.",
        f"healthCheckTimeout: {wait_seconds(deployment.plan.model.tensor_bytes)}",
        "",
        "models:",
        f"  {name}:",
        "    cmd: |",
        *(f"      {line}" for line in command),
        f"    proxy: http://{CHILD_HOST}:{PORT_MACRO}",
    ]
    if deployment.settings.parallel > DEFAULT_CONCURRENCY:
        lines.append(f"    concurrencyLimit: {deployment.settings.parallel}")
    lines += [
        "",
        "# Loaded at once, not at the first request.",
        "hooks:",
        "  on_startup:",
        f"    preload: [{name}]",
    ]
    text = comment(heading(deployment, left)) + "\n" + "\n".join(lines) + "\n"
    address = shlex.quote(_address(deployment))
    return Exported((File(FILE, text),), left, (f"llama-swap --config {FILE} --listen {address}",))


def word(text: str) -> str:
    """A word of the command. A dollar sign and a brace get quotes between them, which vanish when
    the command is split: `${…}` would be a macro that nobody defined."""
    return shlex.quote(text).replace("${", "$''{")


def wait_seconds(tensor_bytes: int) -> int:
    return max(DEFAULT_WAIT_SECONDS, round(tensor_bytes / SLOW_DISK_BYTES_PER_SECOND))


def _address(deployment: Deployment) -> str:
    host = f"[{deployment.host}]" if ":" in deployment.host else deployment.host
    return f"{host}:{deployment.port}"


TARGET = Target("llama-swap", "llama-swap: configuration", export)
