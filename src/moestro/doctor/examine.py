"""Runs the checklist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moestro.doctor.case import Case
from moestro.doctor.check import Check, unknown
from moestro.errors import MoestroError
from moestro.findings import Finding


@dataclass(frozen=True, slots=True)
class Answer:
    """What one check found; no finding means that its question does not arise here."""

    check: Check
    findings: tuple[Finding, ...]


def examine(
    case: Case, checks: Iterable[Check], began: Callable[[Check], None] = lambda check: None
) -> tuple[Answer, ...]:
    """Every check's answer, in their order. A check that a strange file trips up is *unknown*, and
    does not keep the others from being run."""
    answers = []
    for check in checks:
        began(check)
        try:
            found = tuple(check.run(case))
        except (MoestroError, OSError, ValueError) as error:
            found = (_tripped(check, error),)
        answers.append(Answer(check, found))
    return tuple(answers)


def _tripped(check: Check, error: Exception) -> Finding:
    said = error.sentence if isinstance(error, MoestroError) else f"{type(error).__name__}: {error}"
    return unknown(
        f"{check.name}-unreadable",
        f"“{check.question}” could not be answered",
        said,
        "This machine says something that moestro does not understand: please report it.",
    )
