"""Does the hypervisor give this virtual machine the processor when it asks for it?

`steal` in `/proc/stat`: time in which something here wanted to run and the host ran another guest.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity

_LEAST_TICKS = 6000
"""A minute of one processor's work, at 100 ticks a second."""

_TOO_MUCH = 0.05
"""The engine's threads meet after every operation: one that waits for its processor keeps all
waiting. With four threads, 5 % each is up to 19 % of the speed: 1 − 0.95⁴."""


def _run(case: Case) -> Iterator[Finding]:
    share = stolen_share(case.host)
    if share is None:
        return
    evidence = f"{100 * share:.1f} % of the time that it wanted since the boot"
    if share > _TOO_MUCH:
        yield Finding(
            Severity.WARN,
            "cpu-stolen",
            "The hypervisor keeps this machine's processors waiting",
            evidence,
            "Ask for processors of its own (a dedicated or “compute” type of machine), or move to "
            "another host. Measurements made here spread as widely.",
        )
    elif share > 0:
        yield ok("cpu-stolen", "The hypervisor gives this machine its processors", evidence)


def stolen_share(host: Host) -> float | None:
    """Of the time in which something wanted to run; None where the kernel does not count it."""
    ticks = (host.text("proc/stat") or "").partition("\n")[0].split()
    if len(ticks) < 9 or ticks[0] != "cpu" or not all(part.isdigit() for part in ticks[1:9]):
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, ticks[1:9])
    wanted = user + nice + system + irq + softirq + steal
    return steal / wanted if wanted >= _LEAST_TICKS else None


CHECK = Check(
    "cpu-stolen", "machine", "Does the hypervisor keep the processors busy elsewhere?", _run,
)  # fmt: skip
