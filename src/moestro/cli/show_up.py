"""What `up` prints for a person."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moestro.findings import Severity
from moestro.units import format_bytes, format_count, format_rate

if TYPE_CHECKING:
    from moestro.cli.launch import Prepared
    from moestro.cli.up import FirstAnswer
    from moestro.engine import Engine
    from moestro.hardware import Machine
    from moestro.model import ModelSpec

_STYLE = {Severity.FAIL: "bold red", Severity.WARN: "yellow"}


def show_plan(prepared: Prepared) -> None:
    """Before the engine starts: the model, the machine, the settings and their reasons."""
    console = Console(highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    grid.add_row("model", escape(prepared.name))
    grid.add_row("anatomy", _anatomy_line(prepared.model))
    grid.add_row("machine", _machine_line(prepared.machine))
    grid.add_row("memory", _memory_line(prepared))
    console.print(grid)
    console.print()
    console.print(_settings_table(prepared))
    for finding in prepared.findings:
        if style := _STYLE.get(finding.severity):
            evidence = f" ({finding.evidence})" if finding.evidence else ""
            console.print(Text(f"{finding.severity}: {finding.title}{evidence}", style=style))
            if finding.fix:
                console.print(f"  {escape(finding.fix)}")


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


def _anatomy_line(model: ModelSpec) -> str:
    words = [model.architecture, f"{format_count(model.parameters)} parameters"]
    if model.experts is not None:
        words.append(f"{format_count(model.parameters_active)} active")
        words.append(f"{model.experts.used} of {model.experts.count} experts")
    if model.mtp_layers:
        words.append("MTP")
    return escape(", ".join(words))


def _machine_line(machine: Machine) -> str:
    cores = f"{machine.usable_cores} core" + ("" if machine.usable_cores == 1 else "s")
    gpus = ", ".join(
        gpu.name + (f" {format_bytes(gpu.memory_bytes)}" if gpu.memory_bytes else "")
        for gpu in machine.gpus
    )
    memory = f"{format_bytes(machine.memory_bytes)} RAM"
    return escape(
        f"{machine.processor or machine.architecture}: {cores}, {memory}, {gpus or 'no GPU'}"
    )


def _memory_line(prepared: Prepared) -> str:
    choice = prepared.choice
    return (
        f"weights {format_bytes(choice.weights_bytes)} + cache {format_bytes(choice.cache_bytes)}"
        f" of {format_bytes(prepared.machine.usable_memory_bytes)} free"
    )


def _settings_table(prepared: Prepared) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("because")
    table.add_column("source", no_wrap=True)
    settings = prepared.choice.settings.to_json()
    for reason in prepared.choice.reasons:
        table.add_row(
            reason.setting.removesuffix("_bytes").replace("_", " "),
            _value(reason.setting, settings[reason.setting]),
            reason.because,
            reason.source,
        )
    return table


def _value(name: str, value: object) -> str:
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    return str(value)


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
