"""llama-server's presets: an INI file for its router (`--models-preset`).

The reader is `common/preset.cpp`. A value has no quotes: it goes from the first sign after the
equals sign to the end of the line, or to the first `;` or `#`, wherever that stands. So some file
names cannot be said. A section's name ends at `]`; a name after a colon is a quantization.
"""

from __future__ import annotations

import shlex

from moestro.engine.llama_server.flags import Flag
from moestro.engine.llama_server.llama_cpp import CORS
from moestro.export.deployment import Deployment
from moestro.export.flags import PROGRAM, alias, flags, own_engine, unexpressed
from moestro.export.heading import comment, heading, server_notes
from moestro.export.target import Exported, File, Target, Unexpressed

FILE = "llama-server.ini"

_ROUTERS = ("--host", "--port", "--alias")
"""The router gives its children an address, and calls them by their sections."""

_NEGATED = "--no-"
_TAKEN = ("", "*", "default")
"""Sections for all models, and for what stands before the first one."""


def export(deployment: Deployment) -> Exported:
    name = section(deployment)
    lines, left = [], list(_left(deployment, name))
    for flag in flags(deployment):
        if flag[0] in _ROUTERS:
            continue
        key, value = entry(flag)
        if _sayable(value):
            lines.append(f"{key} = {value}")
        else:
            lines.append(f"; {key} cannot be written here, see above")
            left.append(_unsayable(key, value))
    body = "\n".join((f"[{name}]", *lines, "", "; Loaded at once, not at the first request."))
    head = comment(heading(deployment, left, server_notes(deployment)), ";")
    text = f"{head}\n{body}\nload-on-startup = true\n"
    host, port = shlex.quote(deployment.host), deployment.port
    use = f"{PROGRAM} --models-preset {FILE} --host {host} --port {port} {CORS[0]} {CORS[1]}"
    return Exported((File(FILE, text),), tuple(left), (use,))


def entry(flag: Flag) -> tuple[str, str]:
    """A flag as key and value."""
    name, value = flag
    if value is not None:
        return name.removeprefix("--"), value
    if name.startswith(_NEGATED):
        return name.removeprefix(_NEGATED), "false"
    return name.removeprefix("--"), "true"


def section(deployment: Deployment) -> str:
    name = "".join("_" if sign in "[]:" else sign for sign in alias(deployment)).strip()
    return f"{name}-model" if name in _TAKEN else name


def _sayable(value: str) -> bool:
    return value == value.strip(" \t") and not set(value) & set(";#\r\n")


def _unsayable(key: str, value: str) -> Unexpressed:
    return Unexpressed(
        key,
        value,
        "an INI value ends at the first ; or #, and at a space at its end. Make a symbolic link "
        "with a plain name, and plan with that.",
    )


def _left(deployment: Deployment, name: str) -> list[Unexpressed]:
    """What is left of the names that flags have, with the router's own."""
    found = [*own_engine(deployment, "the router that reads it")]
    found += [entry for entry in unexpressed(deployment) if entry.setting != "name"]
    if name != deployment.name:
        found.append(
            Unexpressed(
                "name",
                deployment.name,
                f"the router reads some signs in its own way: clients call the model {name}.",
            )
        )
    return found


TARGET = Target("llama-server-ini", "llama-server: INI preset for its router", export)
