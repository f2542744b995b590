"""One question of the checklist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from moestro.findings import Finding, Severity

if TYPE_CHECKING:
    from moestro.doctor.case import Case

Area = Literal["memory", "machine", "model", "service", "agents"]


@dataclass(frozen=True, slots=True)
class Check:
    """`name` is that of its file, with dashes; `question` is what a person would ask.

    `run` gives one finding or several: what is wrong, each under a code of its own, or `ok` with
    what was seen; *unknown* says in its fix what would make it known. Nothing at all means that the
    question does not arise here: no GPU, no model. `quick` checks take no time worth speaking of,
    and `up` runs them too.
    """

    name: str
    area: Area
    question: str
    run: Callable[[Case], Iterable[Finding]]
    quick: bool = False


def ok(code: str, title: str, evidence: str | None = None) -> Finding:
    return Finding(Severity.OK, code, title, evidence)


def unknown(code: str, title: str, evidence: str | None, fix: str) -> Finding:
    """`fix` says what would make it known."""
    return Finding(Severity.UNKNOWN, code, title, evidence, fix)
