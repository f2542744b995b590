"""How long does a step of a tool loop take?

Seeds of trouble are many short answers on a slow machine, and a context that the loop outgrows.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.agent_loop import LOOP
from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.findings import Finding, Severity

SLOW_SECONDS = 30.0
"""Agents and their HTTP clients begin to give up at a minute; prompts deeper than the plan's double
a step easily."""


def run(case: Case) -> Iterator[Finding]:
    plan = case.plan
    if plan is None or plan.fits is False:
        return
    if plan.settings.context < LOOP.longest:
        trained = plan.model.context_length
        longer = trained is None or trained >= LOOP.longest
        yield Finding(
            Severity.INFO,
            "agent-context-short",
            "A tool loop outgrows the context",
            f"{LOOP.steps} steps reach {LOOP.longest:,} tokens (from {LOOP.first_prompt:,}, "
            f"{LOOP.output + LOOP.result} more each); a stream has {plan.settings.context:,}",
            f"Give --context {LOOP.longest} or more if agents are to use it."
            if longer
            else f"The model was trained for {trained:,} tokens: take another one for agents.",
        )
    if plan.speed is None:
        missing = ", ".join(plan.speed_missing) or "a measurement of this machine"
        yield unknown(
            "agent-step-unknown",
            "The time of a tool loop's step is not known",
            f"what a forecast lacks: {missing}",
            "Measure this machine once: moestro hardware --measure.",
        )
        return
    seconds, again = LOOP.step_seconds(plan.speed), LOOP.read_again_seconds(plan.speed)
    evidence = (
        f"{seconds:.1f} s a step ({LOOP.result} tokens read, {LOOP.output} written), "
        f"{again:.1f} s more where the whole prompt is read again"
    )
    if seconds > SLOW_SECONDS:
        yield Finding(
            Severity.WARN,
            "agent-steps-slow",
            "A step of a tool loop takes long",
            evidence,
            "Let a smaller dense model choose and format tool calls, or take a faster "
            "quantization or machine.",
        )
    else:
        yield ok("agent-step", "A tool loop's steps are quick enough", evidence)


CHECK = Check("agent-step", "agents", "How long does a step of a tool loop take?", run)
