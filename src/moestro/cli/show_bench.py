"""Draws a load's figures for people, 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestro.cli.bench_figures import (
    SPREAD_HEADS,
    SWEEP_LEGEND,
    error_lines,
    figure_rows,
    heading,
    notes,
    spread_rows,
    sweep_heads,
    sweep_rows,
    what_was_sent,
)
from moestro.cli.benching import Bench


def show_bench(bench: Bench, console: Console) -> None:
    """Prints `bench`; reads well without colour."""
    console.print(Text(heading(bench), style="bold"))
    console.print(Text(bench.scenario.title))
    for run in bench.runs if len(bench.runs) == 1 else ():
        console.print(Text(what_was_sent(run)))
        if run.summary.requests:
            console.print()
            console.print(_table(SPREAD_HEADS, spread_rows(run.summary)))
            console.print()
            grid = Table.grid(padding=(0, 2))
            for name, value in figure_rows(run.summary):
                grid.add_row(Text(name), Text(value))
            console.print(grid)
    if len(bench.runs) > 1:
        console.print()
        console.print(_table(sweep_heads(bench), sweep_rows(bench)))
        console.print(Text(SWEEP_LEGEND, style="dim"))
    if errors := list(error_lines(bench)):
        console.print()
        console.print(Text("errors", style="bold red"))
        for line in errors:
            console.print(Text(f"  {line}"))
    for note in notes(bench):
        console.print()
        console.print(Text(note))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
