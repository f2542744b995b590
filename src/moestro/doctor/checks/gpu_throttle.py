"""What holds the GPUs' clocks down now: heat, the board, a lowered power limit.

That a working card reaches its power limit is how it is meant to be, and is no finding.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.gpus import CaseGpu, gpus_of
from moestro.findings import Finding, Severity
from moestro.hardware.gpu_state import GpuState

_NEAR_C = 5.0
_LOWERED, _LOW = 0.9, 0.6
_COOL = "Let air through the case, clean the fans, and keep cards a slot apart from each other."


def _run(case: Case) -> Iterator[Finding]:
    for found in gpus_of(case):
        state = found.state
        told = state is not None and (
            state.temperature_c is not None or state.reasons is not None
        )  # fmt: skip
        if state is None or not told:
            if not found.gpu.shared:
                yield unknown(
                    "gpu-throttle-unknown",
                    f"{found.name}: nothing tells of its temperature or its clocks",
                    None,
                    "NVIDIA: see that nvidia-smi works here. AMD: run where /sys/class/drm shows "
                    "the card.",
                )
            continue
        troubles = [*_hot(found.name, state), *_held_back(found.name, state),
                    *_power(found, state)]  # fmt: skip
        yield from troubles
        if not troubles:
            heat = "" if state.temperature_c is None else f"{state.temperature_c:.0f} °C"
            yield ok("gpu-throttle", f"Nothing slows {found.name} down", heat or None)


def _hot(name: str, state: GpuState) -> Iterator[Finding]:
    heat, limit = state.temperature_c, state.slowdown_c
    near = heat is not None and limit is not None and heat >= limit - _NEAR_C
    thermal = "thermal" in (state.reasons or ())
    if near or thermal:
        parts = [
            None if heat is None else f"{heat:.0f} °C",
            None if limit is None else f"it slows down at {limit:.0f} °C",
            "its clocks are lowered for heat" if thermal else None,
        ]
        yield Finding(
            Severity.WARN, "gpu-hot", f"{name} is at its limit of heat",
            "; ".join(filter(None, parts)), _COOL,
        )  # fmt: skip


def _held_back(name: str, state: GpuState) -> Iterator[Finding]:
    words = {
        "power-brake": "the power supply asks it to slow down (power brake)",
        "hardware-slowdown": "the board slows it down for heat or power",
    }
    said = [words[reason] for reason in state.reasons or () if reason in words]
    if said:
        yield Finding(
            Severity.WARN,
            "gpu-throttled",
            f"The board holds {name} back",
            "; ".join(said),
            "Check the card's power plugs (each with a cable of its own) and whether the power "
            "supply is large enough; then its cooling.",
        )


def _power(found: CaseGpu, state: GpuState) -> Iterator[Finding]:
    limit, default = state.power_limit_watts, state.default_power_limit_watts
    if limit is None or default is None or limit >= _LOWERED * default:
        return
    yield Finding(
        Severity.WARN if limit < _LOW * default else Severity.INFO,
        "gpu-power-limited",
        f"The power limit of {found.name} is set below its default",
        f"{limit:.0f} of {default:.0f} W",
        f"Unless it is wanted, take it back: {_unlimit(found, state, default)}",
    )


def _unlimit(found: CaseGpu, state: GpuState, default: float) -> str:
    if state.vendor == "nvidia":
        return f"sudo nvidia-smi{found.chosen} -pl {default:.0f}"
    sensors = f"/sys/bus/pci/devices/{state.bus_id or 'SLOT'}/hwmon/hwmon*"
    return f"cat {sensors}/power1_cap_default | sudo tee {sensors}/power1_cap"


CHECK = Check("gpu-throttle", "machine", "Do the GPUs run at their full clocks?", _run)
