"""Draws the doctor's answers for people, and as a block for a bug report."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestro import __version__
from moestro.cli.anatomy import finding_table
from moestro.cli.show_plan import anatomy_line, machine_line, plan_name
from moestro.doctor.case import Case
from moestro.doctor.examine import Answer
from moestro.engine.facts import EngineFacts
from moestro.findings import WORST_FIRST, Finding, Severity, worst_first

_STYLES = {
    Severity.FAIL: "bold red",
    Severity.WARN: "yellow",
    Severity.UNKNOWN: "yellow",
    Severity.OK: "green",
}


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many there are of each severity, the worst first; zeros too."""
    found = Counter(finding.severity for finding in findings)
    return {str(severity): found[severity] for severity in WORST_FIRST}


def show_doctor(case: Case, answers: Sequence[Answer], seconds: float, console: Console) -> None:
    """What is wrong first, then in a line each what is well."""
    console.print(_head(case))
    findings = [finding for answer in answers for finding in answer.findings]
    for finding in worst_first(findings):
        if finding.severity is not Severity.OK:
            console.print()
            console.print(finding_table(finding))
    console.print()
    console.print(_well(answers))
    console.print()
    console.print(_sum(findings, answers, seconds))


def _head(case: Case) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, words in _subject(case):
        grid.add_row(name, Text(words))
    return grid


def _subject(case: Case) -> Iterator[tuple[str, str]]:
    if case.plan is not None:
        yield "model", plan_name(case.plan)
        yield "anatomy", anatomy_line(case.plan.model)
    yield "machine", machine_line(case.inventory)
    if isinstance(case.engine, EngineFacts):
        build = f", {case.engine.build} build" if case.engine.build else ""
        yield "engine", f"{case.engine.name} {case.engine.version}{build}"


def _well(answers: Sequence[Answer]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for answer in answers:
        for finding in answer.findings:
            if finding.severity is Severity.OK:
                evidence = f": {finding.evidence}" if finding.evidence else ""
                table.add_row(Text("ok:", "green"), "", Text(f"{finding.title}{evidence}"))
    return table


def _sum(findings: Sequence[Finding], answers: Sequence[Answer], seconds: float) -> Text:
    asked = sum(1 for answer in answers if answer.findings)
    words: list[str | tuple[str, str]] = [f"{asked} checks in {seconds:.1f} s: "]
    for severity in WORST_FIRST:
        count = sum(1 for finding in findings if finding.severity is severity)
        style = _STYLES.get(severity, "") if count else "dim"
        words += [(f"{count} {severity}", style), ", "]
    rest = len(answers) - asked
    words[-1] = f"; {rest} do not arise here" if rest else ""
    return Text.assemble(*words)


def report_block(case: Case, answers: Sequence[Answer], seconds: float) -> str:
    """Markdown to paste into a bug report. Home folders and what is called after people in them are
    left out."""
    findings = [finding for answer in answers for finding in answer.findings]
    fine = [finding.code for finding in findings if finding.severity is Severity.OK]
    lines = [
        f"moestro {__version__}, Python {platform.python_version()}, {_system()}",
        *(f"{name}: {words}" for name, words in _subject(case)),
        *_planned(case),
        "",
        *_troubles(findings),
        f"ok: {', '.join(fine)}",
        f"{seconds:.1f} s",
    ]
    return "\n".join(["### moestro doctor", "", "```", *map(_anonymous, lines), "```", ""])


def _planned(case: Case) -> Iterator[str]:
    if case.plan is None:
        return
    settings = case.plan.settings.to_json()
    yield "settings: " + ", ".join(f"{name}={value}" for name, value in settings.items())
    for device in case.plan.ledger.devices:
        known = device.capacity_bytes
        capacity = "an unknown size" if known is None else f"{known:,}"
        yield f"{device.device}: {device.total_bytes:,} bytes planned of {capacity}"


def _troubles(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in worst_first(findings):
        if finding.severity is not Severity.OK:
            yield f"{finding.severity}: {finding.code}: {finding.title}"
            if finding.evidence:
                yield f"    {finding.evidence}"


def _system() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _anonymous(line: str) -> str:
    """One line, in which folders called after people are `~`, and which cannot end the block."""
    home = str(Path.home())
    if len(home) > 1:
        line = re.sub(rf"{re.escape(home)}(?=/|$|[\s:,;])", "~", line)
    line = re.sub(r"/(?:home|Users)/[^/\s]+", "~", line)
    return " ".join(line.replace("```", "'''").split("\n"))
