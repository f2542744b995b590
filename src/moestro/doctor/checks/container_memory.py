"""Does the container or the service manager leave the plan the memory that it takes?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor import cgroup
from moestro.doctor.case import Case
from moestro.doctor.cgroup import Bound
from moestro.doctor.check import Check, ok
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.units import format_bytes

_GIVE_MORE = (
    "docker run --memory, Compose mem_limit, Kubernetes resources.limits.memory, systemd MemoryMax="
)


def run(case: Case) -> Iterator[Finding]:
    if cgroup.own_path(case.host) is None:
        return
    hard = cgroup.memory_bound(case.host)
    soft = cgroup.memory_bound(case.host, soft=True)
    if case.plan is None or (hard is None and soft is None):
        if hard is None and soft is None:
            yield ok(
                "container-memory", "No container and no service manager limits the memory",
                f"memory.max and memory.high of {cgroup.own_path(case.host)} and the groups around "
                "it: no limit",
            )  # fmt: skip
        return
    need = HostNeed.of(case.plan)
    least_bytes = need.total_bytes - need.margin_bytes
    trouble = True
    if hard is not None and least_bytes > hard.room:
        yield _too_small(case, hard, need)
    elif soft is not None and least_bytes > soft.room:
        yield Finding(
            Severity.WARN,
            "container-throttles",
            "The kernel would slow the service down before its memory limit is reached",
            f"{_evidence(soft, need)} (memory.high)",
            "Raise memory.high above that (systemd: MemoryHigh=), or take a smaller plan.",
        )
    else:
        trouble = False
    tightest = min((bound for bound in (hard, soft) if bound), key=lambda bound: bound.room)
    if not trouble and need.total_bytes > tightest.room:
        yield Finding(
            Severity.WARN,
            "container-tight",
            "The plan fits the memory limit of this container or service, with little to spare",
            f"{_evidence(tightest, need)}; {format_bytes(need.margin_bytes)} of the plan are a "
            "margin that would be left free",
            f"Give it a little more ({_GIVE_MORE}), or lower --context or --parallel.",
        )
    elif not trouble:
        yield ok(
            "container-memory", "The limit of this container or service has room for the plan",
            _evidence(tightest, need),
        )  # fmt: skip


def _too_small(case: Case, bound: Bound, need: HostNeed) -> Finding:
    swap = cgroup.swap_bytes(case.host, bound.path)
    may_swap = "" if swap is None else f"; it may swap {format_bytes(swap)}"
    dies = need.anonymous_bytes > bound.room
    what = "the kernel would end the engine" if dies else "weights would be read from disk"
    return Finding(
        Severity.FAIL,
        "container-too-small",
        f"The memory limit of this container or service is too small: {what}",
        _evidence(bound, need) + may_swap,
        f"Give it more ({_GIVE_MORE}), or take a smaller plan.",
    )


def _evidence(bound: Bound, need: HostNeed) -> str:
    used = "" if bound.used is None else f", {format_bytes(bound.used)} of it used"
    return (
        f"the plan takes {format_bytes(need.total_bytes)} of host memory; "
        f"the limit is {format_bytes(bound.limit)}{used}"
    )


CHECK = Check(
    "container-memory",
    "memory",
    "Does the container leave the plan the memory that it takes?",
    run,
    quick=True,
)
