"""The doctor's checks that cost next to nothing, for a model that is about to be served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moestro.doctor.case import Address, Case, ModelCase
from moestro.doctor.checks import CHECKS
from moestro.doctor.examine import examine
from moestro.doctor.host import this_host
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory
from moestro.planning import Plan
from moestro.verify.stored import StoredVerdict


def with_quick_checks(
    plan: Plan, machine: Inventory, verdict: StoredVerdict | None, address: Address | None
) -> Plan:
    """The plan with what the quick checks found wrong, beyond what the plan says itself."""
    paths = tuple(Path(file.location) for file in plan.model.files)
    here = paths if all(path.is_file() for path in paths) else ()
    case = Case(
        host=this_host(),
        inventory=machine,
        model=ModelCase(plan.model, here, verdict=verdict),
        plan=plan,
        address=address,
    )
    told = {finding.code for finding in (*plan.model.findings, *plan.findings)}
    wrong = [finding for finding in quick_findings(case) if finding.code not in told]
    return replace(plan, findings=(*plan.findings, *wrong))


def quick_findings(case: Case) -> list[Finding]:
    """What the quick checks find wrong."""
    return [
        finding
        for answer in examine(case, [check for check in CHECKS if check.quick])
        for finding in answer.findings
        if finding.severity in (Severity.FAIL, Severity.WARN)
    ]
