"""Is the plan one for this machine and this file?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.hardware import Gpu, Inventory
from moestro.planning.concerns import engine_changed
from moestro.units import format_bytes

_TOLERANCE = 0.02


def run(case: Case) -> Iterator[Finding]:
    file = case.plan_file
    if file is None:
        return
    trouble = False
    # A plan leaves out GPUs that the engine does not see, there as here.
    here = case.plan.hardware if case.plan is not None else case.inventory
    differences = _differences(file.hardware, here)
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
    engine = engine_changed(file.engine, case.plan.engine) if case.plan is not None else None
    if engine is not None:
        trouble = True
        yield engine
    if not trouble:
        yield ok(
            "plan-matches", "The plan was made for this machine and this file",
            f"{here.cpu.model or 'processor unknown'}, "
            f"{format_bytes(here.memory.usable_total_bytes)}, GPUs: {_gpus(here)}",
        )  # fmt: skip


def _differences(planned: Inventory, here: Inventory) -> list[str]:
    found: list[tuple[str, object, object]] = []
    if planned.cpu.model != here.cpu.model:
        found.append(("processor", planned.cpu.model, here.cpu.model))
    if planned.cpu.usable_cores != here.cpu.usable_cores:
        found.append(("usable cores", planned.cpu.usable_cores, here.cpu.usable_cores))
    before, now = planned.memory.usable_total_bytes, here.memory.usable_total_bytes
    if not _alike(before, now):
        found.append(("memory", format_bytes(before), format_bytes(now)))
    if len(planned.gpus) != len(here.gpus) or not all(map(_same, planned.gpus, here.gpus)):
        found.append(("GPUs", _gpus(planned), _gpus(here)))
    return [f"{what}: {was or 'unknown'} planned, {is_ or 'unknown'} here"
            for what, was, is_ in found]  # fmt: skip


def _alike(before: int | None, now: int | None) -> bool:
    """A kernel's update takes a little more or less of the memory for itself."""
    if before is None or now is None:
        return True
    return abs(before - now) <= _TOLERANCE * max(before, now)


def _same(before: Gpu, now: Gpu) -> bool:
    return before.name == now.name and _alike(before.memory_bytes, now.memory_bytes)


def _gpus(machine: Inventory) -> str:
    shown = (
        gpu.name if gpu.memory_bytes is None else f"{gpu.name} ({format_bytes(gpu.memory_bytes)})"
        for gpu in machine.gpus
    )
    return " + ".join(shown) or "none"


CHECK = Check("plan-matches", "machine", "Is the plan one for this machine and this file?", run)
