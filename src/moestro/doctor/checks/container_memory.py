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


def run(case: Case) -> Iterator[Finding]:
    if cgroup.own_path(case.host) is None:
        return
    hard = cgroup.memory_bound(case.host)
    soft = cgroup.memory_bound(case.host, soft=True)
    if case.plan is None or (hard is None and soft is None):
        if hard is None and soft is None:
            yield ok("container-memory", "No container and no service manager limits the memory")
        return
    need = HostNeed.of(case.plan)
    trouble = False
    if hard is not None and need.total_bytes > hard.room:
        trouble = True
        yield _too_small(case, hard, need)
    elif soft is not None and need.total_bytes > soft.room:
        trouble = True
        yield Finding(
            Severity.WARN,
            "container-throttles",
            "The kernel would slow the service down before its memory limit is reached",
            f"{_evidence(soft, need)} (memory.high)",
            "Raise memory.high above that (systemd: MemoryHigh=), or take a smaller plan.",
        )
    if not trouble:
        tightest = hard or soft
        assert tightest is not None
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
        "Give it more (docker run --memory, Compose mem_limit, Kubernetes resources.limits.memory, "
        "systemd MemoryMax=), or take a smaller plan.",
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
