"""Broken on purpose: what tool loops meet, plans from elsewhere, machines that tire."""

from __future__ import annotations

from dataclasses import replace

from moestro.doctor.case import Case
from moestro.doctor.soak import SoakReport, SoakSample
from moestro.findings import Severity
from moestro.planning import Estimate, Wishes
from moestro.planning.plan_file import PlanFile
from moestro.units import GIB
from tests.doctor.setups import Setup
from tests.doctor.workshop import Workshop, inventory, model, planned, template_report

STRETCHES = 18


def soak(
    speeds: list[float], *, grows_bytes: int = 0, stolen: float = 0.0, others: float = 0.0
) -> SoakReport:
    """A soak whose stretches had these speeds, on a machine that grew warm."""
    samples = tuple(
        SoakSample(
            at_seconds=4.0 * (number + 1),
            tokens_per_second=speed,
            temperature_c=50.0 + 2 * number,
            rss_bytes=GIB + grows_bytes * number // len(speeds),
            stolen=stolen,
            others=others,
        )
        for number, speed in enumerate(speeds)
    )
    return SoakReport(4.0 * len(speeds), 4, samples)


STEADY = [100.0 + number % 3 for number in range(STRETCHES)]
SILENT = [100.0] * 10 + [0.0] * 8
TIRED = [100.0 - 1.5 * number for number in range(STRETCHES)]


def slow_machine(workshop: Workshop) -> Case:
    plan = planned()
    assert plan.speed is not None
    crawl = Estimate(3.0, 2.0, 4.0, "measured")
    return workshop.case(plan=replace(plan, speed=replace(plan.speed, decode=crawl)))


def thinking_template(workshop: Workshop) -> Case:
    template = replace(template_report(), keeps_prefix=False)
    return workshop.case(
        plan=planned(Wishes(context_checkpoints=0)), model=replace(model(), template=template)
    )


def plan_of_another_machine(workshop: Workshop) -> Case:
    file = PlanFile.of(planned())
    there = replace(inventory(), gpus=())
    return workshop.case(plan_file=replace(file, hardware=there))


def plan_of_another_model(workshop: Workshop) -> Case:
    file = PlanFile.of(planned())
    other = replace(file.model, architecture="qwen3moe", tensor_bytes=20 * GIB)
    return workshop.case(plan_file=replace(file, model=other))


def crashed(workshop: Workshop) -> Case:
    gone = SoakReport(7.0, 4, (), "The engine was killed from outside (SIGKILL).")
    return workshop.case(soak=gone)


SETUPS: tuple[Setup, ...] = (
    Setup(
        "slow-tool-loop",
        "a machine that writes 3 tokens per second",
        "agent-steps-slow",
        Severity.WARN,
        slow_machine,
    ),
    Setup(
        "no-checkpoints",
        "recurrent layers, and no context checkpoints in the plan",
        "re-prefill-after-changes",
        Severity.WARN,
        lambda workshop: workshop.case(plan=planned(Wishes(context_checkpoints=0))),
    ),
    Setup(
        "no-checkpoints-rewriting-template",
        "the same, and a chat template that rewrites earlier turns",
        "re-prefill-every-turn",
        Severity.WARN,
        thinking_template,
    ),
    Setup(
        "plan-from-elsewhere",
        "a plan file made on a machine without the GPU",
        "plan-of-another-machine",
        Severity.WARN,
        plan_of_another_machine,
    ),
    Setup(
        "plan-for-another-file",
        "a plan file made for a larger model of another architecture",
        "plan-of-another-model",
        Severity.FAIL,
        plan_of_another_model,
    ),
    Setup(
        "heat",
        "a soak that loses 1.5 % of the speed with every stretch",
        "slows-under-load",
        Severity.WARN,
        lambda workshop: workshop.case(soak=soak(TIRED)),
    ),
    Setup(
        "silence",
        "a soak in which the engine writes nothing any more",
        "silent-under-load",
        Severity.FAIL,
        lambda workshop: workshop.case(soak=soak(SILENT)),
    ),
    Setup(
        "disturbed-soak",
        "the same loss as with heat, while other programs have a third of the processors",
        "soak-disturbed",
        Severity.UNKNOWN,
        lambda workshop: workshop.case(soak=soak(TIRED, others=0.33)),
    ),
    Setup(
        "growth",
        "a soak in which the engine grows by 8 GiB",
        "memory-grows",
        Severity.WARN,
        lambda workshop: workshop.case(soak=soak(STEADY, grows_bytes=8 * GIB)),
    ),
    Setup(
        "crash-under-load",
        "an engine that is killed during the soak",
        "soak-failed",
        Severity.FAIL,
        crashed,
    ),
)
