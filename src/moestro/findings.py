"""A finding: what was seen, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from moestro.words import plain


class Severity(StrEnum):
    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable and kebab-case; `evidence` holds the numbers; `fix` is an instruction.

    Names out of files and drivers stand in all of them, so what a terminal would obey is replaced.
    """

    severity: Severity
    code: str
    title: str
    evidence: str | None = None
    fix: str | None = None

    def __post_init__(self) -> None:
        for name in ("title", "evidence", "fix"):
            text = getattr(self, name)
            if text is not None:
                object.__setattr__(self, name, plain(text))

    def to_json(self) -> dict[str, str | None]:
        return {
            "severity": str(self.severity),
            "code": self.code,
            "title": self.title,
            "evidence": self.evidence,
            "fix": self.fix,
        }


WORST_FIRST = (Severity.FAIL, Severity.WARN, Severity.UNKNOWN, Severity.INFO, Severity.OK)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Those of one severity stay in their order."""
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.severity))


def any_failed(findings: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.FAIL for finding in findings)
