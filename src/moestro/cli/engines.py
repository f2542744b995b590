"""`moestro engines`: which engines are here, what each can do, and native ones built here."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import json_option
from moestro.findings import any_failed

if TYPE_CHECKING:
    from moestro.engine.build.make import Prepared
    from moestro.engine.build.record import BuildRecord
    from moestro.engine.registry import Family

FAMILIES = ("llama.cpp", "ik_llama.cpp")


@click.group(name="engines")
def command() -> None:
    """Which engines are here, and native ones built on this machine.

    The engine is a setting like any other: moestro tune tries those that are here, and a plan
    records which one it is for.
    """


@command.command(name="list")
@click.option("--for", "model", metavar="MODEL", help="Say which of them would run this model.")
@json_option
def list_engines(model: str | None, as_json: bool) -> int:
    """The engines here: the embedded one, those built here, a llama-server on the PATH."""
    from moestro.cli.engine_rows import engine_rows

    rows, findings = engine_rows(model)
    if as_json:
        said: dict[str, Any] = {
            "engines": [row.to_json() for row in rows],
            "findings": [finding.to_json() for finding in findings],
        }
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_engines import show_engines

        show_engines(rows, findings, Console(highlight=False))
    return 1 if any_failed(findings) else 0


@command.command(name="build")
@click.argument("family", type=click.Choice(FAMILIES))
@click.option(
    "--source",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A checkout, or the source distribution (folder or .tar.gz) of the Python package "
    "xllamacpp or ik-llama-cpp-python. Default: fetched from the project's own repository.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Compilers at once (default: one a core, fewer where memory is short).",
)
@click.option(
    "--cuda/--no-cuda",
    default=None,
    help="For NVIDIA's GPUs too (default: where nvcc and such a GPU are here).",
)
@json_option
def build(
    family: Family, source: Path | None, jobs: int | None, cuda: bool | None, as_json: bool
) -> int:
    """Compile an engine for this very machine: 15 to 20 minutes on two cores.

    Ctrl-C stops it; the same command then goes on from there.
    """
    from moestro.engine.build.make import prepare
    from moestro.hardware.this_machine import this_inventory

    for number in (signal.SIGTERM, signal.SIGHUP):  # the compiler is not to outlive us
        signal.signal(number, signal.default_int_handler)
    inventory = this_inventory(gpus=cuda is not False)
    prepared = prepare(
        family,
        cuda=cuda,
        jobs=jobs,
        gpus=inventory.gpus,
        cores=inventory.cpu.usable_cores,
        free_bytes=inventory.memory.available_bytes,
    )
    record = _build_with_progress(prepared, source)
    if as_json:
        said = {**record.to_json(), "program": str(record.program)}
        click.echo(json.dumps(said, ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_engines import show_built

        show_built(record, Console(highlight=False))
    return 0


@command.command(name="remove")
@click.argument("engine", metavar="ENGINE")
def remove_engine(engine: str) -> int:
    """Delete an engine that was built here, and what a build of it left."""
    from moestro.engine.build.record import remove

    folder = remove(engine)
    click.echo(f"{folder} is deleted.")
    return 0


def _build_with_progress(prepared: Prepared, source: Path | None) -> BuildRecord:
    """Builds, and shows on stderr how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from moestro.cli.show_engines import STAGE_WORDS, expectation
    from moestro.engine.build.make import Stage, build_engine

    console = Console(stderr=True, highlight=False)
    console.print(expectation(prepared), soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            seen: set[Stage] = set()

            def tell(stage: Stage, done: int, total: int | None) -> None:
                words = STAGE_WORDS[stage]
                if stage not in seen:
                    seen.add(stage)
                    if not console.is_terminal:
                        console.print(f"{words} …")
                bar.update(task, description=words, completed=done, total=total)

            return build_engine(prepared, source, tell)
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from here.")
        raise
