"""What the page of a service shows of its plan, its machine, and what `verify` found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestro.cli.launch import Prepared
from moestro.planning.placement import gpu_name
from moestro.verify.stored import profile_of

PARTS = ("weights", "cache", "compute", "other")

if TYPE_CHECKING:
    from moestro.gateway.board import About


def about(prepared: Prepared) -> About:
    from moestro.cli.show_plan import anatomy_line, machine_line
    from moestro.gateway.board import About

    plan = prepared.plan
    memory = []
    for device in plan.ledger.devices:
        said = device.to_json()
        del said["lines"]
        resident = dict.fromkeys(PARTS, 0)
        for line in device.lines:
            resident[line.part] += line.size_bytes if line.resident else 0
        later = [line.kind for line in device.lines if not line.resident]
        memory.append({**said, "resident": resident, "later": later})
    return About(
        model={
            "architecture": plan.model.architecture,
            "quantization": plan.model.quantization,
            "anatomy": anatomy_line(plan.model),
            "size_bytes": plan.model.tensor_bytes,
        },
        engine=plan.engine.to_json(),
        machine=machine_line(plan.hardware),
        settings=plan.settings.to_json(),
        reasons=[reason.to_json() for reason in plan.reasons],
        memory=memory,
        speed=plan.speed.to_json() if plan.speed is not None else None,
        device_bytes=_device_bytes(prepared),
        routing=lambda: _routing(prepared),
    )


def _device_bytes(prepared: Prepared) -> Callable[[int], Mapping[str, int]] | None:
    machine = prepared.plan.hardware
    if not machine.gpus:
        return None

    def look(pid: int) -> dict[str, int]:
        from moestro.hardware.gpu_state import read_gpu_states

        found: dict[str, int] = {}
        for state in read_gpu_states(machine) or ():
            held = [one.used_bytes for one in state.processes or () if one.pid == pid]
            known = [size for size in held if size is not None]
            if known:
                found[gpu_name(state.index)] = sum(known)
        return found

    return look


def _routing(prepared: Prepared) -> dict[str, Any] | None:
    return profile_of([Path(file.location) for file in prepared.model.files])
