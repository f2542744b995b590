"""llama-swap's configuration: it starts llama-server when a request needs it.

llama-swap splits a command as a shell would, without being one: quotes and backslashes work, and
`${NAME}` is a macro of its own even within quotes. A line that starts with `#` is dropped.
`${env.NAME}` is replaced wherever it stands in the file, in keys too, in older releases even in
comments, and one that is not set ends the reading.
"""

from __future__ import annotations

import json
import shlex

from moestro.export.address import host_port
from moestro.export.allowance import start_seconds
from moestro.export.deployment import Deployment
from moestro.export.flags import alias, flags, nameless_engine, program, unexpressed
from moestro.export.heading import comment, heading
from moestro.export.target import Exported, File, Target, Unexpressed

FILE = "llama-swap.yaml"
CHILD_HOST = "127.0.0.1"
PORT_MACRO = "${PORT}"

DEFAULT_CONCURRENCY = 10
"""Requests beyond this get 429 where nothing else is said; llama-server queues them."""


def export(deployment: Deployment) -> Exported:
    left = (*nameless_engine(deployment), *unexpressed(deployment), *_renamed(deployment))
    name = json.dumps(key(deployment), ensure_ascii=False)  # a double-quoted scalar of YAML too
    command = [word(program(deployment))]
    for flag, value in flags(deployment, family=deployment.engine.family, host=CHILD_HOST):
        if flag == "--port":
            command.append(f"{flag} {PORT_MACRO}")
        else:
            command.append(flag if value is None else f"{flag} {word(value)}")
    lines = [
        "# Seconds until the model must be loaded, from a slow disk.",
        f"healthCheckTimeout: {start_seconds(deployment)}",
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
    head = comment(heading(deployment, left)).replace("${", "$ {")
    text = head + "\n" + "\n".join(lines) + "\n"
    address = shlex.quote(host_port(deployment))
    return Exported((File(FILE, text),), left, (f"llama-swap --config {FILE} --listen {address}",))


def word(text: str) -> str:
    """A word of the command. A dollar sign and a brace get quotes between them, which vanish when
    the command is split: `${…}` would be a macro that nobody defined."""
    return shlex.quote(text).replace("${", "$''{")


def key(deployment: Deployment) -> str:
    """What clients call the model. No escape keeps a macro in a key from being one."""
    return alias(deployment).replace("${", "$_{")


def _renamed(deployment: Deployment) -> tuple[Unexpressed, ...]:
    name = key(deployment)
    if name == alias(deployment):
        return ()
    how = f"llama-swap reads ${{…}} as a macro: clients call the model {name}."
    return (Unexpressed("name", deployment.name, how),)


TARGET = Target("llama-swap", "llama-swap: configuration", export)
