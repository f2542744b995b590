"""What `engines` prints for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moestro.cli.anatomy import finding_table
from moestro.findings import Finding
from moestro.units import format_bytes
from moestro.words import plain

if TYPE_CHECKING:
    from moestro.cli.engine_rows import EngineRow
    from moestro.engine.build.make import Prepared, Stage
    from moestro.engine.build.record import BuildRecord

STAGE_WORDS: dict[Stage, str] = {
    "source": "bringing the source",
    "configure": "looking at the compiler",
    "compile": "compiling",
    "try": "trying the engine",
}
_ORIGINS = {
    "embedded": "part of moestro",
    "built": "built here",
    "path": "on the PATH",
    "given": "given",
}
_RUNS = {
    True: "architecture known: it would be tried",
    False: "architecture not known",
    None: "only a try would tell",
}


def show_engines(rows: Sequence[EngineRow], findings: Sequence[Finding], console: Console) -> None:
    """One block an engine; what is not known is left out or printed as unknown."""
    for number, row in enumerate(rows):
        if number:
            console.print()
        info = row.info
        words = f"{info.family} {info.version} · {_ORIGINS[info.origin]}"
        console.print(
            Text.assemble((plain(info.id), "bold"), "  ", (plain(words), "dim")), soft_wrap=True
        )
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in _lines(row):
            table.add_row(escape(name), escape(plain(value)))
        console.print(table)
    for finding in findings:
        console.print()
        console.print(finding_table(finding))


def show_built(record: BuildRecord, console: Console) -> None:
    minutes = record.seconds / 60
    console.print(
        Text.assemble((record.id, "bold"), f"  built in {minutes:.0f} min, tried, and installed"),
        soft_wrap=True,
    )
    console.print(escape(plain(str(record.program))), soft_wrap=True)
    console.print(escape(plain(f"compiled for {', '.join(record.instruction_sets) or 'unknown'}")))
    console.print(
        Text("hint: moestro tune MODEL finds out what it is worth on this machine.", "dim")
    )


def expectation(prepared: Prepared) -> str:
    """What will be done and how long it takes, said before it begins."""
    jobs = f"{prepared.jobs} compiler{'' if prepared.jobs == 1 else 's'} at once"
    kind = " with CUDA" if prepared.cuda else ""
    seconds = prepared.expected_seconds
    if seconds is None:
        duration = "half an hour or more"
    else:
        minutes = max(1, round(seconds / 60))
        duration = f"about {minutes} minute{'' if minutes == 1 else 's'}"
    return (
        f"Building {prepared.family}{kind}, {jobs}: {duration}. "
        "Ctrl-C stops it and keeps what is done."
    )


def _lines(row: EngineRow) -> list[tuple[str, str]]:
    info = row.info
    known = info.architectures
    lines = [
        ("program", str(info.program)) if info.program is not None else ("", ""),
        ("compiled for", ", ".join(row.info.instruction_sets) or "unknown"),
        ("devices", ", ".join(info.devices)) if info.devices else ("", ""),
        ("features", ", ".join(sorted(info.features)) or "none"),
        ("architectures", "unknown" if known is None else f"{len(known)} known"),
    ]
    if row.seconds is not None:
        lines.append(("built in", f"{row.seconds / 60:.0f} min, {format_bytes(row.size_bytes)}"))
    if row.model is not None:
        lines.append((row.model, _RUNS[row.runs]))
    return [line for line in lines if line[0]]
