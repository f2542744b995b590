"""Does the kernel promise the memory that the engine asks for?

With `vm.overcommit_memory` 2 it promises no more than its limit, used or not: an allocation beyond
it fails at once. Mapped model files need no promise.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.units import format_bytes

_FIX = (
    "Raise vm.overcommit_ratio on the host, or let the kernel judge by itself: "
    "sudo sysctl -w vm.overcommit_memory=0"
)


def run(case: Case) -> Iterator[Finding]:
    host = case.host
    mode = host.number("proc/sys/vm/overcommit_memory")
    if mode is None:
        return
    if mode != 2:
        yield ok("overcommit", "The kernel does not hold memory promises back",
                 f"vm.overcommit_memory = {mode}")  # fmt: skip
        return
    if case.plan is None:
        return
    need = HostNeed.of(case.plan).anonymous_bytes
    limit = host.kilobytes("proc/meminfo", "CommitLimit")
    promised = host.kilobytes("proc/meminfo", "Committed_AS")
    if limit is None or promised is None:
        yield unknown(
            "overcommit-strict",
            "The kernel bounds its promises of memory, and does not say how far",
            f"vm.overcommit_memory = 2; the plan asks for {format_bytes(need)}",
            "CommitLimit and Committed_AS in /proc/meminfo of the host would tell.",
        )
        return
    room = max(limit - promised, 0)
    evidence = (
        f"vm.overcommit_memory = 2, {format_bytes(room)} of {format_bytes(limit)} left to promise; "
        f"the plan asks for {format_bytes(need)} beside the mapped weights"
    )
    if need > room:
        yield Finding(
            Severity.FAIL,
            "overcommit-strict",
            "The kernel would refuse the engine its memory",
            evidence,
            _FIX,
        )
    else:
        yield ok("overcommit", "The kernel has room for the plan's memory", evidence)


CHECK = Check("overcommit", "memory", "Does the kernel promise the memory that is asked for?", run)
