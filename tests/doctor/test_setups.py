"""Every set-up that was broken on purpose is named by its check; a healthy one by none."""

from __future__ import annotations

import pytest
from scripts.doctor_page import PAGE, render

from moestro.doctor.check import Check
from moestro.doctor.checks import CHECKS
from moestro.doctor.host import Host
from moestro.findings import Severity
from tests.doctor.checklist import ADVICE
from tests.doctor.running import Outcome, found_in
from tests.doctor.setups import Setup
from tests.doctor.setups_list import SETUPS
from tests.doctor.workshop import Workshop

TROUBLE = (Severity.WARN, Severity.FAIL, Severity.UNKNOWN)
LEAST = 25


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_what_is_broken_is_found(setup: Setup, outcomes: dict[str, Outcome]) -> None:
    found = outcomes[setup.name].found
    named = [finding for _, finding in found if finding.code == setup.code]
    assert [finding.severity for finding in named] == [setup.severity], found
    assert named[0].evidence
    assert named[0].fix


def test_there_are_enough_of_them() -> None:
    assert sum(setup.severity in (Severity.WARN, Severity.FAIL) for setup in SETUPS) >= LEAST


def test_nothing_is_wrong_with_a_healthy_machine_and_a_clean_model(workshop: Workshop) -> None:
    found = found_in(workshop.case())
    assert [finding for _, finding in found if finding.severity in TROUBLE] == []
    broken = {setup.code for setup in SETUPS}
    assert [finding for _, finding in found if finding.code in broken] == []


def test_a_host_that_hides_everything_is_blamed_for_nothing(workshop: Workshop) -> None:
    """A container without /proc and /sys, no vendor's tool, no model."""
    bare = Host(root=workshop.root / "nothing")
    case = workshop.case(host=bare, gpu_states=None, model=None, plan=None, engine=None)
    wrong = [f for _, f in found_in(case) if f.severity in (Severity.WARN, Severity.FAIL)]
    assert wrong == []


def test_what_is_unknown_says_what_would_make_it_known(workshop: Workshop) -> None:
    bare = Host(root=workshop.root / "nothing")
    case = workshop.case(host=bare, gpu_states=None)
    unknown = [f for _, f in found_in(case) if f.severity is Severity.UNKNOWN]
    assert unknown
    assert all(finding.fix for finding in unknown)


def test_names_are_unique() -> None:
    assert len({setup.name for setup in SETUPS}) == len(SETUPS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_check_has_the_name_of_its_file() -> None:
    for check in CHECKS:
        assert check.run.__module__ == f"moestro.doctor.checks.{check.name.replace('-', '_')}"


def test_every_line_of_the_field_s_checklist_has_an_answer() -> None:
    checks, setups = {check.name for check in CHECKS}, {setup.name for setup in SETUPS}
    for advice in ADVICE:
        assert set(advice.checks) <= checks, advice
        assert set(advice.setups) <= setups, advice
        assert advice.checks or advice.truth, advice
        assert bool(advice.checks) == bool(advice.setups), advice


def test_the_page_says_what_the_tests_found(outcomes: dict[str, Outcome]) -> None:
    assert PAGE.read_text(encoding="utf-8") == render(outcomes), "python -m scripts.doctor_page"


@pytest.mark.parametrize("check", [c for c in CHECKS if c.quick], ids=lambda check: check.name)
def test_a_quick_check_can_find_something_when_a_model_is_served(
    check: Check, outcomes: dict[str, Outcome]
) -> None:
    assert any(name == check.name for o in outcomes.values() for name, _ in o.when_served)
