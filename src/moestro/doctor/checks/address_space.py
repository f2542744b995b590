"""Do the limits of address space and data (`ulimit -v`, `ulimit -d`) let the engine load the model?

The engine maps each file of a model whole, so files count against the address space even where
their weights go to a GPU. Mapped files do not count as data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.planning import Plan
from moestro.units import GIB, MIB, format_bytes


@dataclass(frozen=True, slots=True)
class _Space:
    """A limit, what raises it, and what the engine takes of it beside its model: libraries, stacks,
    the allocator's reserves. With less than `least_bytes` it does not start; with `easy_bytes` it
    never notices."""

    limit: str
    noun: str
    command: str
    unit: str
    least_bytes: int
    easy_bytes: int


# Measured with the demo model and 2 threads on Linux x86-64: beside model and buffers the engine
# failed to start with 674 MiB of address space and started with 714, and took 1020 unbounded; of
# data 511, 551 and 540.
_SPACES = (
    _Space("as", "address space", "ulimit -v unlimited", "LimitAS=infinity", 640 * MIB, GIB),
    _Space("data", "data", "ulimit -d unlimited", "LimitDATA=infinity", 448 * MIB, 640 * MIB),
)


def run(case: Case) -> Iterator[Finding]:
    plan = case.plan
    spaces = [space for space in _SPACES if space.limit in case.host.limits]
    if plan is None or not spaces:
        return
    found = [finding for space in spaces for finding in _short(case, plan, space)]
    yield from found or [
        ok(
            "address-space",
            "No limit of address space is in the way",
            ", ".join(f"{space.noun} {_shown(_soft(case, space))}" for space in spaces),
        )
    ]


def _short(case: Case, plan: Plan, space: _Space) -> Iterator[Finding]:
    soft = _soft(case, space)
    if soft is None:
        return
    need = HostNeed.of(plan)
    files = 0
    if space.limit == "as":
        files = need.mapped_bytes if need.file_bytes is None else need.file_bytes
    least = files + need.resident_bytes + space.least_bytes
    easy = files + need.anonymous_bytes + space.easy_bytes
    reserved = easy + _reserved_bytes(case, plan) if space.limit == "as" else easy
    if soft >= reserved:
        return
    if soft < least:
        title = f"The limit of {space.noun} is too low to load the model"
        wanted = f"at least {format_bytes(least)} needed"
    elif soft < easy:
        title = f"The limit of {space.noun} is too low for all that the plan allows"
        wanted = f"about {format_bytes(easy)} needed, full caches included"
    else:
        title = f"The limit of {space.noun} may keep NVIDIA's driver from starting"
        wanted = (
            "the driver reserves addresses for all memory of host and cards, so about "
            f"{format_bytes(reserved)} are needed"
        )
    yield Finding(
        Severity.FAIL if soft < least else Severity.WARN,
        "address-space-limited",
        title,
        f"{format_bytes(soft)} allowed; {wanted}",
        f"Raise it where the service is started: {space.command}, or {space.unit} in its systemd "
        "unit.",
    )


def _reserved_bytes(case: Case, plan: Plan) -> int:
    """One range of addresses for host and cards ("unified addressing")."""
    cards = [gpu.memory_bytes or 0 for gpu in plan.hardware.gpus if gpu.vendor == "nvidia"]
    return case.inventory.memory.total_bytes + sum(cards) if cards else 0


def _soft(case: Case, space: _Space) -> int | None:
    return case.host.limits[space.limit][0]


def _shown(soft: int | None) -> str:
    return "unlimited" if soft is None else format_bytes(soft)


CHECK = Check(
    "address-space",
    "memory",
    "Do the limits of address space let the engine load the model?",
    run,
    quick=True,
)
