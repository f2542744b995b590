"""Steps that begin in small letters are commands: a shell understands every one of them."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from moestro.export.target import Target
from moestro.export.targets import TARGETS
from tests.export.changes import base
from tests.export.plans import with_file
from tests.export.test_llama_server import COMMENTED, HOSTILE

NAMES = (*HOSTILE, *COMMENTED, "https://h/a'b $(id).gguf?x=1&y", "/srv/a(b", "C:\\m\\x y.gguf")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target.name))
def test_commands_are_commands(target: Target) -> None:
    commands = []
    for name in NAMES:
        case = with_file(replace(base(), host="::"), name)
        use = target.export(case).use
        assert not any("\n" in step for step in use)
        commands += [step for step in use if step[:1].islower()]
    assert commands
    # Each on its own, so that a quote that one leaves open is not closed by another.
    script = "".join(
        f"sh -n <<'END_OF_IT' || echo {number}\n{command}\nEND_OF_IT\n"
        for number, command in enumerate(commands)
    )
    done = subprocess.run(
        ["sh"], input=script, capture_output=True, text=True, timeout=30, check=True
    )
    assert [commands[int(number)] for number in done.stdout.split()] == []
    assert done.stderr == ""
