"""Tool loops, plan files and soaks: what the set-ups leave out."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from moestro.cli.soaking import ProcessorTimes, processor_times
from moestro.doctor.agent_loop import LOOP, AgentLoop
from moestro.doctor.checks import agent_step, plan_matches, re_prefill, soak
from moestro.findings import Severity
from moestro.planning import Estimate, Wishes
from moestro.planning.plan_file import PlanFile
from moestro.units import GIB
from tests.doctor.setups_agents import SETUPS, SILENT, STEADY, TIRED
from tests.doctor.setups_agents import soak as soaked
from tests.doctor.workshop import Workshop, inventory, planned

CHECKS = (agent_step.CHECK, plan_matches.CHECK, re_prefill.CHECK, soak.CHECK)


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_each_set_up_has_its_check_here(setup: object, workshop: Workshop) -> None:
    case = setup.change(workshop)  # type: ignore[attr-defined]
    codes = [finding.code for check in CHECKS for finding in check.run(case)]
    assert setup.code in codes  # type: ignore[attr-defined]


def test_the_seconds_of_a_step_are_what_its_tokens_take() -> None:
    plan = planned()
    assert plan.speed is not None
    speed = replace(
        plan.speed,
        prefill=Estimate(1000.0, 1000.0, 1000.0, "measured"),
        decode=Estimate(10.0, 10.0, 10.0, "measured"),
    )
    loop = AgentLoop(steps=3, first_prompt=2000, output=100, result=400)
    assert loop.step_seconds(speed) == pytest.approx(0.4 + 10.0)
    # Steps 1 and 2 have prompts of 2500 and 3000 tokens, of which 400 are new anyway.
    assert loop.read_again_seconds(speed) == pytest.approx((2.1 + 2.6) / 2)
    assert loop.longest == 3100


def test_a_context_that_the_loop_outgrows_is_told(workshop: Workshop) -> None:
    plan = planned(Wishes(context=2048))
    short = list(agent_step.CHECK.run(workshop.case(plan=plan)))
    assert short[0].code == "agent-context-short"
    # The demo model was trained for less than a loop, so a longer context is no help.
    assert "4,096" in (short[0].fix or "")
    long_lived = replace(plan, model=replace(plan.model, context_length=1 << 17))
    other = list(agent_step.CHECK.run(workshop.case(plan=long_lived)))
    assert f"--context {LOOP.longest}" in (other[0].fix or "")
    long = list(agent_step.CHECK.run(workshop.case(plan=planned(Wishes(context=32768)))))
    assert [finding.code for finding in long] == ["agent-step"]


def test_without_a_forecast_the_step_is_unknown(workshop: Workshop) -> None:
    plan = replace(planned(), speed=None, speed_missing=("RAM bandwidth",))
    found = list(agent_step.CHECK.run(workshop.case(plan=plan)))
    assert found[-1].severity is Severity.UNKNOWN
    assert "RAM bandwidth" in (found[-1].evidence or "")


def test_without_a_plan_nothing_is_said(workshop: Workshop) -> None:
    case = workshop.case(plan=None)
    assert [finding for check in CHECKS for finding in check.run(case)] == []


def test_a_plan_of_this_machine_and_file_matches(workshop: Workshop) -> None:
    found = list(plan_matches.CHECK.run(workshop.case(plan_file=PlanFile.of(planned()))))
    assert [finding.code for finding in found] == ["plan-matches"]


def test_noise_is_not_a_drop(workshop: Workshop) -> None:
    # Every third stretch is slow, at the end as at the beginning.
    noisy = [100.0, 60.0, 95.0] * 5 + [100.0, 60.0, 62.0]
    found = list(soak.CHECK.run(workshop.case(soak=soaked(noisy))))
    assert [finding.code for finding in found] == ["soak"]


@pytest.mark.parametrize("speeds", [TIRED, TIRED[::-1]])
@pytest.mark.parametrize("taken", [{"stolen": 0.3}, {"others": 0.3}])
def test_what_others_took_is_not_heat(
    taken: dict[str, float], speeds: list[float], workshop: Workshop
) -> None:
    found = list(soak.CHECK.run(workshop.case(soak=soaked(speeds, **taken))))
    assert [finding.severity for finding in found] == [Severity.UNKNOWN]
    assert found[0].code == "soak-disturbed"
    assert "30%" in (found[0].evidence or "")


def test_a_little_of_others_is_no_excuse(workshop: Workshop) -> None:
    found = list(soak.CHECK.run(workshop.case(soak=soaked(TIRED, others=0.02, stolen=0.01))))
    assert [finding.code for finding in found] == ["slows-under-load"]
    steady = list(soak.CHECK.run(workshop.case(soak=soaked(STEADY, others=0.5))))
    assert [finding.code for finding in steady] == ["soak"]


def test_a_rise_is_told(workshop: Workshop) -> None:
    found = list(soak.CHECK.run(workshop.case(soak=soaked(TIRED[::-1]))))
    assert [(finding.code, finding.severity) for finding in found] == [
        ("soak-began-slow", Severity.INFO)
    ]


@pytest.mark.parametrize("speeds", [[0.0] * 18, SILENT])
def test_silence_is_a_failure(speeds: list[float], workshop: Workshop) -> None:
    found = list(soak.CHECK.run(workshop.case(soak=soaked(speeds, others=0.5))))
    assert [(finding.code, finding.severity) for finding in found] == [
        ("silent-under-load", Severity.FAIL)
    ]


def test_the_time_that_other_processes_had() -> None:
    before = ProcessorTimes(whole=1000.0, busy=300.0, stolen=10.0, own=100.0)
    after = ProcessorTimes(whole=1100.0, busy=380.0, stolen=15.0, own=150.0)
    assert after.others_since(before) == pytest.approx(0.3)
    assert after.stolen_since(before) == pytest.approx(0.05)
    alone = replace(after, own=181.0)  # counted more finely than what all did
    assert alone.others_since(before) == 0.0
    for gone in (replace(after, own=None), replace(after, whole=1000.0)):
        assert gone.others_since(before) is None
    assert replace(after, stolen=None).stolen_since(before) is None


def test_an_engine_that_has_ended_had_no_time_of_its_own() -> None:
    assert processor_times(None).own is None
    assert processor_times(os.getpid()).own is not None


def test_a_short_soak_says_that_it_is(workshop: Workshop) -> None:
    found = list(soak.CHECK.run(workshop.case(soak=soaked(STEADY[:4]))))
    assert [finding.code for finding in found] == ["soak-too-short"]
    assert "4 stretches" in (found[0].evidence or "")


def test_a_few_mebibytes_make_no_other_machine(workshop: Workshop) -> None:
    """Another kernel keeps a little more for itself; another container does not."""
    file, here = PlanFile.of(planned()), inventory()
    for share, code in ((1.01, "plan-matches"), (0.9, "plan-of-another-machine")):
        memory = replace(here.memory, total_bytes=int(here.memory.total_bytes * share))
        there = replace(file, hardware=replace(here, memory=memory))
        found = list(plan_matches.CHECK.run(workshop.case(plan_file=there)))
        assert [finding.code for finding in found] == [code]
        assert found[0].evidence


def test_a_plan_belongs_to_a_version_of_its_engine(workshop: Workshop) -> None:
    """A build of the same release for another kind of GPU is the same engine."""
    plan = planned()
    made = replace(plan, engine=replace(plan.engine, version="2026.1+cu128"))
    file = PlanFile.of(made)
    for version, codes in (
        ("2026.1", ["plan-matches"]),
        ("2026.2", ["plan-of-another-engine"]),
        (None, ["plan-of-another-engine"]),
    ):
        here = replace(plan, engine=replace(plan.engine, version=version))
        found = list(plan_matches.CHECK.run(workshop.case(plan=here, plan_file=file)))
        assert [finding.code for finding in found] == codes


@pytest.mark.parametrize("gib", [[48], [24, 24]])
def test_cards_of_one_name_may_differ(gib: list[int], workshop: Workshop) -> None:
    file, here = PlanFile.of(planned()), inventory()
    gpus = tuple(replace(here.gpus[0], memory_bytes=size * GIB) for size in gib)
    there = replace(file, hardware=replace(here, gpus=gpus))
    found = list(plan_matches.CHECK.run(workshop.case(plan_file=there)))
    assert [finding.code for finding in found] == ["plan-of-another-machine"]
    assert f"{gib[0]}.0 GiB" in (found[0].evidence or "")


def test_gpus_that_the_engine_does_not_see_are_in_no_plan(workshop: Workshop) -> None:
    """A build for processors on a machine with a GPU: the plan was made right here."""
    plan = planned()
    unseen = replace(plan, hardware=replace(plan.hardware, gpus=()))
    case = workshop.case(
        plan=unseen, plan_file=replace(PlanFile.of(plan), hardware=unseen.hardware)
    )
    assert [finding.code for finding in plan_matches.CHECK.run(case)] == ["plan-matches"]
