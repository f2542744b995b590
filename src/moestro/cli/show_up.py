"""What `up` prints for a person."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestro.findings import Severity
from moestro.units import format_rate

if TYPE_CHECKING:
    from moestro.cli.launch import Prepared
    from moestro.cli.up import FirstAnswer
    from moestro.engine import Engine

_STYLE = {Severity.FAIL: "bold red", Severity.WARN: "yellow"}


def show_service(prepared: Prepared, engine: Engine, url: str, first: FirstAnswer) -> None:
    """Once it answers: where, how fast, how to call it."""
    console = Console(highlight=False)
    console.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    grid.add_row("engine", f"llama.cpp, process {engine.pid}, {_ready(engine)}")
    grid.add_row("speed", _speed_line(first))
    grid.add_row("endpoint", Text(f"{url}/v1", style="bold green"))
    console.print(grid)
    body = '{"messages": [{"role": "user", "content": "Tell me a short story."}]}'
    console.print()
    # Commands are for copying: never wrapped, never marked up.
    for line in (
        f"curl {url}/v1/chat/completions \\",
        "  -H 'Content-Type: application/json' \\",
        f"  -d '{body}'",
        "",
        f"{_program()} chat{_url_option(url)}",
    ):
        console.print(Text(f"  {line}"), soft_wrap=True)
    console.print()
    console.print("Ctrl-C stops it.")


def _program() -> str:
    """How this program is called from here: by its name if the shell would find it."""
    called = Path(sys.argv[0])
    if called.name != "moestro" or shutil.which("moestro"):
        return "moestro"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def _url_option(url: str) -> str:
    from moestro.gateway.defaults import DEFAULT_URL

    return "" if url == DEFAULT_URL else f" --url {url}"


def _ready(engine: Engine) -> str:
    seconds = engine.started_seconds
    return "ready" if seconds is None else f"ready in {seconds:.1f} s"


def _speed_line(first: FirstAnswer) -> str:
    if first.after_start_seconds is None:
        return "the first request brought no token"
    return (
        f"{format_rate(first.tokens_per_second)}, "
        f"first token {first.after_start_seconds:.1f} s after the command"
    )
