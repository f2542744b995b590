"""A finding: what was seen, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable and kebab-case; `evidence` holds the numbers; `fix` is an instruction."""

    severity: Severity
    code: str
    title: str
    evidence: str | None = None
    fix: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return {
            "severity": str(self.severity),
            "code": self.code,
            "title": self.title,
            "evidence": self.evidence,
            "fix": self.fix,
        }


def any_failed(findings: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.FAIL for finding in findings)
