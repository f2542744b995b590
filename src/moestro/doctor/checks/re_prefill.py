"""Does a turn whose history changed read the whole prompt again?

Attention can be cut back to any token. Recurrent states and sliding windows cannot: an engine goes
back to a snapshot of them (a context checkpoint) or starts over. A prompt that only grows is read
on from where it ended either way. Measured with the demo model, 470 tokens of history whose last
answer was edited: 470 read with no checkpoint, 71 with some (docs/reference/doctor.md).
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.agent_loop import LOOP
from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.template.report import TemplateReport
from moestro.findings import Finding, Severity
from moestro.planning import Plan


def run(case: Case) -> Iterator[Finding]:
    plan = case.plan
    if plan is None or plan.model.trunk_layers is None:
        return
    what = _cannot_go_back(plan)
    if what is None:
        yield ok("re-prefill", "A changed prompt is taken up where it changed", "attention alone")
        return
    checkpoints = plan.settings.context_checkpoints
    if checkpoints:
        evidence = f"{what}; {checkpoints} checkpoints for each stream"
        yield ok("re-prefill", "A changed prompt goes on from a checkpoint", evidence)
        return
    cost = ""
    if plan.speed is not None:
        cost = f", {LOOP.read_again_seconds(plan.speed):.1f} s a step of a tool loop"
    rewrites = _rewrites_history(case)
    yield Finding(
        Severity.WARN,
        "re-prefill-every-turn" if rewrites else "re-prefill-after-changes",
        "Every turn reads the whole prompt again"
        if rewrites
        else "A turn whose history changed reads the whole prompt again",
        f"{what} and no context checkpoints{cost}"
        + ("; the chat template rewrites earlier turns" if rewrites else ""),
        "Give --context-checkpoints 4, or leave it out where memory allows it.",
    )


def _cannot_go_back(plan: Plan) -> str | None:
    model = plan.model
    if model.recurrent_bytes_per_sequence:
        return "recurrent layers"
    if model.window_bytes_per_sequence:
        return "sliding windows"
    return None


def _rewrites_history(case: Case) -> bool:
    template = case.model.template if case.model is not None else None
    return isinstance(template, TemplateReport) and template.keeps_prefix is False


CHECK = Check(
    "re-prefill", "agents", "Does a changed turn read the whole prompt again?", run, quick=True
)
