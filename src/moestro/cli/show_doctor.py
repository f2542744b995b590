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
from moestro.findings import Finding, Severity

WORST_FIRST = (Severity.FAIL, Severity.WARN, Severity.UNKNOWN, Severity.INFO, Severity.OK)
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
    for severity in WORST_FIRST[:-1]:
        for finding in findings:
            if finding.severity is severity:
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
    """Markdown to paste into a bug report. Home folders and the like are left out."""
    lines = ["### moestro doctor", "", "```"]
    lines.append(f"moestro {__version__}, Python {platform.python_version()}, {_system()}")
    lines += [f"{name}: {words}" for name, words in _subject(case)]
    if case.plan is not None:
        settings = case.plan.settings.to_json()
        lines.append("settings: " + ", ".join(f"{k}={v}" for k, v in settings.items()))
        for device in case.plan.ledger.devices:
            sizes = (device.total_bytes, device.capacity_bytes)
            lines.append(f"{device.device}: {sizes[0]:,} bytes planned of {sizes[1]}")
    findings = [finding for answer in answers for finding in answer.findings]
    lines.append("")
    for severity in WORST_FIRST[:-1]:
        for finding in findings:
            if finding.severity is severity:
                lines.append(f"{severity}: {finding.code}: {finding.title}")
                if finding.evidence:
                    lines.append(f"    {finding.evidence}")
    fine = [finding.code for finding in findings if finding.severity is Severity.OK]
    lines += [f"ok: {', '.join(fine)}", f"{seconds:.1f} s", "```"]
    return _anonymous("\n".join(lines)) + "\n"


def _system() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _anonymous(text: str) -> str:
    """Folders named after people become `~`; a fence in a foreign name cannot end the block."""
    text = text.replace(str(Path.home()), "~")
    text = re.sub(r"/(home|Users)/[^/\s]+", "~", text)
    lines = text.split("\n")
    return "\n".join(line.replace("```", "'''") if line not in ("```",) else line for line in lines)
