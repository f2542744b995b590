"""What else wants the processor? The kernel's load averages, of the whole host even in a container.

They count threads that run, wait for a processor or wait for a disk; a load as high as the number
of cores leaves none idle.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity

_BUSY, _FULL = 0.5, 0.9


def _run(case: Case) -> Iterator[Finding]:
    host = case.host
    words = (host.text("proc/loadavg") or "").split()
    try:
        load = min(float(words[0]), float(words[1]))  # a peak that is over, or only begins, is none
    except (IndexError, ValueError):
        return
    cores = case.inventory.cpu.physical_cores or case.inventory.cpu.usable_cores
    evidence = f"{words[0]} over 1 minute, {words[1]} over 5; {cores} cores"
    if not 0 <= load < float("inf"):
        return
    if load < 1 or load < _BUSY * cores:
        yield ok("host-load", "The processor has time", evidence)
        return
    left = int(cores - load) if cores - load >= 1 else max(cores // 2, 1)
    yield Finding(
        Severity.WARN if load >= _FULL * cores else Severity.INFO,
        "host-busy",
        "Other work keeps the processor busy",
        evidence,
        "Stop it, or move it to another time (top shows what it is); if it has to run, serve on "
        f"fewer threads: moestro up MODEL --threads {left}",
    )


CHECK = Check("host-load", "machine", "Is the processor free for the model?", _run)
