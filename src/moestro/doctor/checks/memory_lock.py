"""Can weights in host memory be pushed out of it?

The engine locks nothing. Plain weights are mapped from their file: when memory gets short the
kernel drops their pages, however small the limit of locked memory is, and reads them again. So a
low limit matters only where memory is short, and to a llama-server that was told to lock.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host_need import HostNeed, left_bytes
from moestro.findings import Finding, Severity
from moestro.units import format_bytes

LITTLE_SHARE = 0.1
"""Of the host's memory; less than this left, and the kernel soon drops pages of files."""


def run(case: Case) -> Iterator[Finding]:
    if case.plan is None or "memlock" not in case.host.limits:
        return
    need = HostNeed.of(case.plan)
    soft = case.host.limits["memlock"][0]
    weights = need.mapped_bytes
    allowed = "any amount" if soft is None or case.host.superuser else format_bytes(soft)
    evidence = f"{allowed} may be locked, {format_bytes(weights)} of weights are in host memory"
    memory = case.inventory.memory
    left = left_bytes(case.plan, case.inventory)
    little = left < memory.usable_total_bytes * LITTLE_SHARE
    enough = soft is None or case.host.superuser or soft >= weights
    if enough or not little:
        yield ok("memory-lock", "The weights need not be locked", evidence)
        return
    yield Finding(
        Severity.INFO,
        "memory-lock-low",
        "Weights may be dropped from memory, and the limit is too low to lock them",
        f"{evidence}; the plan leaves {format_bytes(max(left, 0))}",
        "Leave more memory free: then nothing is dropped, and nothing has to be locked. A "
        "llama-server with --load-mode mmap+mlock needs ulimit -l unlimited (LimitMEMLOCK=infinity "
        "in a systemd unit).",
    )


CHECK = Check(
    "memory-lock", "memory", "Can weights in host memory be pushed out of it?", run, quick=False
)
