"""Examines every broken set-up once; tests and the page in the documentation share the outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from moestro.doctor.case import Case
from moestro.doctor.checks import CHECKS
from moestro.doctor.examine import examine
from moestro.findings import Finding, Severity
from tests.doctor import healthy_machine, healthy_memory
from tests.doctor.setups_list import SETUPS
from tests.doctor.workshop import Workshop

Found = tuple[str, Finding]
"""The name of a check, and a finding of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`found` by all checks; `when_served` what the quick ones find wrong in what `up` knows."""

    found: list[Found]
    when_served: list[Found]


def workshop_in(folder: Path) -> Workshop:
    return Workshop(folder, {**healthy_memory.FILES, **healthy_machine.FILES})


def found_in(case: Case) -> list[Found]:
    return [(a.check.name, finding) for a in examine(case, CHECKS) for finding in a.findings]


def run_all(folder: Path) -> dict[str, Outcome]:
    """What the checks find in each set-up, by its name."""
    outcomes = {}
    for setup in SETUPS:
        case = setup.change(workshop_in(folder / setup.name))
        quick = examine(as_up_has_it(case), [check for check in CHECKS if check.quick])
        wrong = [
            (answer.check.name, finding)
            for answer in quick
            for finding in answer.findings
            if finding.severity in (Severity.WARN, Severity.FAIL)
        ]
        outcomes[setup.name] = Outcome(found_in(case), wrong)
    return outcomes


def as_up_has_it(case: Case) -> Case:
    """Without what takes time to find out, or does not arise where a model is to be served."""
    model = case.model
    if model is not None:
        model = replace(model, completeness=None, template=None, tokenizer=None)
    return replace(
        case, model=model, engine=None, gpu_states=None, plan_file=None, model_error=None, soak=None
    )
