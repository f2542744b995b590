"""Is the plan one for this machine and this file?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory
from moestro.units import format_bytes


def run(case: Case) -> Iterator[Finding]:
    file = case.plan_file
    if file is None:
        return
    trouble = False
    differences = _differences(file.hardware, case.inventory)
    if differences:
        trouble = True
        yield Finding(
            Severity.WARN,
            "plan-of-another-machine",
            "The plan was made for another machine",
            "; ".join(differences),
            "Plan again here: moestro plan MODEL --json.",
        )
    spec = case.model.spec if case.model is not None else None
    if spec is not None and (
        spec.tensor_bytes != file.model.tensor_bytes or spec.architecture != file.model.architecture
    ):
        trouble = True
        yield Finding(
            Severity.FAIL,
            "plan-of-another-model",
            "The plan was made for another file",
            f"{file.model.architecture} of {format_bytes(file.model.tensor_bytes)} planned, "
            f"{spec.architecture} of {format_bytes(spec.tensor_bytes)} here",
            "Plan this file: moestro plan MODEL --json.",
        )
    if not trouble:
        yield ok("plan-matches", "The plan was made for this machine and this file")


def _differences(planned: Inventory, here: Inventory) -> list[str]:
    found = []
    for name, before, now in (
        ("processor", planned.cpu.model, here.cpu.model),
        ("usable cores", planned.cpu.usable_cores, here.cpu.usable_cores),
        (
            "memory",
            format_bytes(planned.memory.usable_total_bytes),
            format_bytes(here.memory.usable_total_bytes),
        ),
        ("GPUs", _gpus(planned), _gpus(here)),
    ):
        if before != now:
            found.append(f"{name}: {before or 'unknown'} planned, {now or 'unknown'} here")
    return found


def _gpus(machine: Inventory) -> str:
    return " + ".join(gpu.name for gpu in machine.gpus) or "none"


CHECK = Check(
    "plan-matches", "machine", "Is the plan one for this machine and this file?", run, quick=True
)
