"""Set-ups that were broken on purpose, each with the finding that has to name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moestro.doctor.case import Case
from moestro.findings import Severity
from tests.doctor.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Setup:
    """`broken` says in a clause what was done to a healthy machine or model, for the table in the
    documentation; `change` does it and gives the case to examine. `code` and `severity` are the
    finding's that must come of it."""

    name: str
    broken: str
    code: str
    severity: Severity
    change: Callable[[Workshop], Case]
