"""What else holds memory of the GPUs?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.findings import Finding, Severity
from moestro.hardware import Gpu
from moestro.hardware.gpu_state import GpuProcess
from moestro.planning.placement import gpu_name
from moestro.units import GIB, MIB, format_bytes

MUCH_SHARE = 0.05
"""Of a card's memory, held by others."""

HIDDEN_BYTES = 1 * GIB
"""Held by nobody who can be seen: drivers keep hundreds of MiB of a large card for themselves."""

LITTLE_BYTES = 64 * MIB
_MOST_NAMED = 5


def run(case: Case) -> Iterator[Finding]:
    states = {state.index: state for state in case.gpu_states or ()}
    for number, gpu in enumerate(case.inventory.gpus):
        if gpu.shared or gpu.memory_bytes is None:
            continue  # its memory is the host's, or nobody knows it: another check says so
        state = states.get(number)
        processes = state.processes if state is not None else None
        yield _of_one(case, number, gpu, processes)


def _of_one(case: Case, number: int, gpu: Gpu, processes: tuple[GpuProcess, ...] | None) -> Finding:
    assert gpu.memory_bytes is not None
    name = f"{gpu_name(number)} ({gpu.name})"
    seen = sum(process.used_bytes or 0 for process in processes or ())
    used = None if gpu.free_bytes is None else gpu.memory_bytes - gpu.free_bytes
    if processes is None and used is None:
        return unknown(
            "gpu-tenants-unknown",
            f"Whether others hold memory of {name} is not known",
            None,
            "The driver's own tool (nvidia-smi, rocm-smi) tells it, where this user may ask it.",
        )
    many = gpu.memory_bytes * MUCH_SHARE
    lacks = _lacks_bytes(case, number)
    hidden = any(process.used_bytes is None for process in processes or ())
    unseen = max((used or 0) - seen, 0)
    held = seen + (unseen if unseen > max(many, HIDDEN_BYTES) else 0)
    told = used if hidden else held
    evidence = f"{format_bytes(told)} of {format_bytes(gpu.memory_bytes)} held"
    if processes:
        evidence += f" by {_named(processes)}"
    elif held:
        evidence += " by what cannot be seen from here"
    if lacks:
        evidence += f"; the plan lacks {format_bytes(lacks)} there"
    fix = (
        "End what need not run on this card (nvidia-smi or rocm-smi lists it), or move the screen "
        "to another one, and plan again: the plan takes what is free now."
    )
    if held > many or (lacks and (held or processes)):
        title = f"Other programs hold memory of {name}"
        return Finding(Severity.WARN, "gpu-shared", title, evidence, fix)
    if held > LITTLE_BYTES or hidden:
        return Finding(
            Severity.INFO, "gpu-shared", f"{name} is shared with other programs", evidence, fix
        )
    screen = "; a screen hangs on it" if gpu.display else ""
    free = f"{format_bytes(gpu.free_bytes)} of {format_bytes(gpu.memory_bytes)} free{screen}"
    return ok("gpu-tenants", f"Nothing else holds much memory of {name}", free)


def _lacks_bytes(case: Case, number: int) -> int:
    if case.plan is None:
        return 0
    for device in case.plan.ledger.devices:
        if device.device == gpu_name(number) and device.capacity_bytes is not None:
            return max(device.total_bytes - device.capacity_bytes, 0)
    return 0


def _named(processes: tuple[GpuProcess, ...]) -> str:
    largest = sorted(processes, key=lambda process: -(process.used_bytes or 0))
    parts = [
        f"{_word(process.name)} ({process.pid}, {format_bytes(process.used_bytes)})"
        for process in largest[:_MOST_NAMED]
    ]
    more = len(largest) - _MOST_NAMED
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _word(name: str | None) -> str:
    """A program's name as its driver has it: a path, mostly."""
    last = (name or "a hidden program").replace("\\", "/").rsplit("/", 1)[-1][:40]
    return "".join(letter if letter.isprintable() else "?" for letter in last) or "a program"


CHECK = Check("gpu-tenants", "memory", "What else holds memory of the GPUs?", run)
