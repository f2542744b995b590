"""llama-server's command line, as a script: one flag to a line."""

from __future__ import annotations

import shlex

from moestro.export.deployment import Deployment
from moestro.export.flags import flags, nameless_engine, program, unexpressed
from moestro.export.heading import comment, heading, server_notes
from moestro.export.target import Exported, File, Target

FILE = "llama-server.sh"


def export(deployment: Deployment) -> Exported:
    left = (*nameless_engine(deployment), *unexpressed(deployment))
    words = [
        name if value is None else f"{name} {shlex.quote(value)}"
        for name, value in flags(deployment, family=deployment.engine.family)
    ]
    command = " \\\n  ".join((f"exec {shlex.quote(program(deployment))}", *words))
    notes = server_notes(deployment, deployment.engine.family)
    text = f"#!/bin/sh\n{comment(heading(deployment, left, notes))}\n{command}\n"
    return Exported((File(FILE, text),), left, (f"sh {FILE}",))


TARGET = Target("llama-server", "llama-server: command line", export)
