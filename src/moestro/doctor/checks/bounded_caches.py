"""Are the caches that grow with use bounded in bytes, and inside the plan?

What people meet as a leak of llama-server is mostly these two: a prompt cache of 8 GiB and 32
context checkpoints for each slot, without a bound in bytes, are its defaults.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.planning import Plan
from moestro.planning.placement import HOST
from moestro.units import format_bytes

_PLAN_AGAIN = "Plan anew, which bounds them by what is left: moestro plan MODEL --json."


def run(case: Case) -> Iterator[Finding]:
    plan = case.plan
    if plan is None:
        return
    found = [*_unbounded(plan, case), *_too_large(plan)]
    yield from found[:1] or [ok("bounded-caches", "The caches are bounded", _bounds(plan))]


def _unbounded(plan: Plan, case: Case) -> Iterator[Finding]:
    settings = plan.settings
    memory = case.inventory.memory.usable_total_bytes
    if settings.prompt_cache_bytes > memory:
        yield Finding(
            Severity.FAIL,
            "caches-unbounded",
            "The prompt cache may grow until memory runs out",
            f"it may hold {format_bytes(settings.prompt_cache_bytes)}; this machine has "
            f"{format_bytes(memory)}",
            _PLAN_AGAIN,
        )
    elif settings.context_checkpoints and plan.model.trunk_layers is None:
        yield Finding(
            Severity.WARN,
            "caches-unbounded",
            "Context checkpoints are bounded in number, not in bytes",
            f"{settings.context_checkpoints} for each of {settings.parallel} streams, and what one "
            f"takes in {plan.model.architecture} is not known here",
            _PLAN_AGAIN,
        )


def _too_large(plan: Plan) -> Iterator[Finding]:
    host = plan.ledger.device(HOST)
    if host.capacity_bytes is None:
        return
    bounds = host.kind_bytes("prompt cache", "context checkpoints")
    left = host.capacity_bytes - (host.total_bytes - bounds)
    if bounds > left >= 0:  # else the plan does not fit without them either
        yield Finding(
            Severity.FAIL,
            "caches-too-large",
            "The caches may grow beyond the memory that is left for them",
            f"{_bounds(plan)}; {format_bytes(left)} are left beside the rest of the plan",
            _PLAN_AGAIN,
        )


def _bounds(plan: Plan) -> str:
    settings = plan.settings
    host = plan.ledger.device(HOST)
    prompts = format_bytes(host.kind_bytes("prompt cache"))
    states = "no context checkpoints"
    if settings.context_checkpoints:
        size = format_bytes(host.kind_bytes("context checkpoints"))
        states = (
            f"context checkpoints {size} ({settings.context_checkpoints} for each of "
            f"{settings.parallel} streams)"
        )
    return f"at most: prompt cache {prompts}, {states}"


CHECK = Check(
    "bounded-caches",
    "memory",
    "Are the caches that grow with use bounded in bytes, and inside the plan?",
    run,
    quick=True,
)
