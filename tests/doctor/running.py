"""Examines every broken set-up once; tests and the page in the documentation share the outcome."""

from __future__ import annotations

from pathlib import Path

from moestro.doctor.case import Case
from moestro.doctor.checks import CHECKS
from moestro.doctor.examine import examine
from moestro.findings import Finding
from tests.doctor import healthy_machine, healthy_memory
from tests.doctor.setups_list import SETUPS
from tests.doctor.workshop import Workshop

Found = tuple[str, Finding]
"""The name of a check, and a finding of it."""


def workshop_in(folder: Path) -> Workshop:
    return Workshop(folder, {**healthy_memory.FILES, **healthy_machine.FILES})


def found_in(case: Case) -> list[Found]:
    return [(a.check.name, finding) for a in examine(case, CHECKS) for finding in a.findings]


def run_all(folder: Path) -> dict[str, list[Found]]:
    """What the checks find in each set-up, by its name."""
    return {
        setup.name: found_in(setup.change(workshop_in(folder / setup.name))) for setup in SETUPS
    }
