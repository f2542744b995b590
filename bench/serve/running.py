"""A `moestro up demo` of its own, as a user would start it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from bench.planner.machine import describe


@dataclass(frozen=True)
class Running:
    url: str
    pid: int

    def engine_pid(self) -> int:
        """The engine that runs now: the newest child."""
        children = psutil.Process(self.pid).children()
        return int(max(children, key=lambda child: child.create_time()).pid)


def keep(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Writes a bench's result, with its options and the machine, and prints it without them."""
    arguments = {name: value for name, value in vars(options).items() if name != "output"}
    kept = {"machine": describe(), "arguments": arguments, **result}
    options.output.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(result, indent=1))


@contextmanager
def up(
    arguments: Sequence[str], model: str = "demo", events: int = subprocess.DEVNULL
) -> Iterator[Running]:
    """`events` is a file's number for what it says on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moestro", "up", model, "--json", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=events,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    try:
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
        yield Running(report["url"].removesuffix("/v1"), process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
