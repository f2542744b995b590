"""Draws a verification for people: the verdict, why, the figures, what was run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestro.cli.anatomy import finding_table
from moestro.cli.verify_figures import (
    REJECT_GATE,
    VERDICT_WORDS,
    WHOLE_RANGE,
    domains,
    limits_of,
    names,
    ranked,
    reasons,
    remarks,
    rows,
)
from moestro.findings import Severity
from moestro.routing.paired import PairedRouting
from moestro.verify.verdict import Verdict, Verification

_MOST_FINDINGS = 3
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDEST = 80
_FLOOR = 0.8
"""The lowest block stands for this overlap at most: between 99.8 and 99.9 % no difference shows."""

_VERDICT_STYLES = {
    Verdict.PASS: "bold green",
    Verdict.WARN: "bold yellow",
    Verdict.FAIL: "bold red",
}
_JUDGED_STYLES = {
    Severity.FAIL: "bold red",
    Severity.UNKNOWN: "yellow",
    Severity.WARN: "yellow",
    Severity.OK: "green",
}


def show_verification(found: Verification, console: Console) -> None:
    """Prints `found`; reads well without colour and 80 columns wide."""
    console.print(_verdict_line(found))
    _show_findings(found, console)
    if found.divergence is None:
        console.print()
        console.print(Text("Nothing was measured: the two could not be run side by side."))
    elif not ranked(found):
        why = Table.grid(padding=(0, 1))
        for reason in reasons(found):
            why.add_row(" •", Text(reason))
        console.print()
        console.print(why)
    table = _figures_table(found)
    if table is not None:
        console.print()
        console.print(table)
        if any(row.judged for row in rows(found)):
            console.print(Text(WHOLE_RANGE, style="dim"))
    if found.routing is not None:
        console.print()
        console.print(_overlap_line(found.routing, min(console.width, _WIDEST)))
    console.print()
    console.print(_what_was_run(found))
    if found.divergence is not None:
        console.print(Text(REJECT_GATE, style="dim"))


def _verdict_line(found: Verification) -> Text:
    verdict, (candidate, reference) = found.verdict, names(found)
    return Text.assemble(
        (str(verdict).upper(), _VERDICT_STYLES[verdict]),
        "  ",
        (candidate, "bold"),
        f" against {reference}: {VERDICT_WORDS[verdict]}",
    )


def _show_findings(found: Verification, console: Console) -> None:
    against = ranked(found)
    for finding in against[:_MOST_FINDINGS]:
        console.print()
        console.print(finding_table(finding))
    more = len(against) - _MOST_FINDINGS
    if more > 0:
        console.print()
        console.print(Text(f"and {more} more: see --json"))
    for finding in remarks(found):
        console.print()
        console.print(finding_table(finding))


def _figures_table(found: Verification) -> Table | None:
    figures = rows(found)
    if not figures:
        return None
    # What has nothing in it in any row is not worth its width.
    kept = [
        (title, [getattr(row, name) for row in figures])
        for title, name in (("95 % range", "interval"), ("warn", "warn"), ("fail", "fail"))
        if any(getattr(row, name) for row in figures)
    ]
    judged = any(row.judged is not None for row in figures)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    for title, _ in kept:
        table.add_column(title, justify="right", no_wrap=True)
    if judged:
        table.add_column("", no_wrap=True)
    for number, row in enumerate(figures):
        cells = [Text(row.name), Text(row.value), *(Text(cells[number]) for _, cells in kept)]
        if judged:
            word = str(row.judged) if row.judged is not None else ""
            cells.append(Text(word, _JUDGED_STYLES.get(row.judged, "") if row.judged else ""))
        table.add_row(*cells)
    return table


def _overlap_line(routing: PairedRouting, width: int) -> Text:
    """A bar for each layer; where there are more layers than columns, for the worst of a few."""
    values = [layer.overlap.value for layer in routing.layers]
    each = math.ceil(len(values) / width)
    worst = [min(values[start : start + each]) for start in range(0, len(values), each)]
    floor = min(_FLOOR, math.floor(min(worst) * 10) / 10)
    first, last = routing.layers[0].layer, routing.layers[-1].layer
    which = f"layer {first}" if first == last else f"layers {first} to {last}"
    several = f", the worst of each {each}" if each > 1 else ""
    scale = f"{_BLOCKS[0]} {floor:.0%}, {_BLOCKS[-1]} 100%"
    return Text.assemble(
        f"same experts, {which}{several} ({scale})\n", (_bars(worst, floor), "cyan")
    )


def _bars(values: Sequence[float], floor: float) -> str:
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - floor) / (1 - floor) * top)] for value in values)


def _what_was_run(found: Verification) -> Text:
    words = []
    if found.tokens:
        named = domains(found)
        scored = f" ({found.divergence.tokens:,} scored)" if found.divergence else ""
        words.append(f"{found.tokens:,} tokens{scored}")
        words.append(f"{'domain' if len(named) == 1 else 'domains'} {', '.join(named)}")
    if found.repetition is not None:
        words.append(f"{found.repetition.prompts} texts continued")
    words.append(f"limits {limits_of(found)}")
    spent = sum(found.seconds.values())
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in found.seconds.items())
    words.append(f"{spent:.0f} s ({stages})" if stages else f"{spent:.0f} s")
    return Text("; ".join(words), style="dim")
