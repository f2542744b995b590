"""How the GPUs fare now: temperature, clocks, what holds them back, who else is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestro.hardware.gpu import Gpu, Link, Vendor, Version

if TYPE_CHECKING:
    from moestro.hardware.inventory import Inventory


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU; `name` and `used_bytes` None where it is hidden."""

    pid: int
    name: str | None
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU now. Temperatures in °C, power in watts, clocks in MHz; None where nothing tells.

    `index` is the position in `Inventory.gpus`. `link` is what the kernel says of the slot: what
    the link runs at, and the most that the card itself could do; NVML's own maximum is that of card
    and slot together and hides a slot with too few lanes. `reasons` say what lowers the clocks:
    `thermal`, `power`, `power-brake`, `hardware-slowdown`; an idle card has none. `uncorrected`
    counts memory errors that could not be corrected since the driver was loaded.
    `power_limit_watts` is what somebody set; a notebook's firmware enforces less by design.
    `divided`: MIG is on, so that programs get slices of the card, and one slice each.
    `remap_pending`: memory rows wait for a restart to be replaced. `busy` is the share of the last
    moments in which the GPU worked, 0 to 1. `driver_cuda` is the newest CUDA that the driver runs.
    """

    index: int
    vendor: Vendor
    name: str
    bus_id: str | None = None
    temperature_c: float | None = None
    slowdown_c: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    default_power_limit_watts: float | None = None
    busy: float | None = None
    reasons: tuple[str, ...] | None = None
    link: Link | None = None
    uncorrected: int | None = None
    remap_pending: bool | None = None
    processes: tuple[GpuProcess, ...] | None = None
    driver_cuda: Version | None = None
    divided: bool | None = None


def read_gpu_states(
    inventory: Inventory, *, root: Path = Path("/"), nvml: Any = None
) -> tuple[GpuState, ...] | None:
    """How the inventory's GPUs fare, in its order; None where nothing could tell of any of them.

    A GPU that nothing tells of is missing. `root` stands for `/` and `nvml` for the module `pynvml`
    (None: the installed one). Takes as long as the driver does, 10 seconds at most.
    """
    # They make what is defined here.
    from moestro.hardware.amd_state import amd_states
    from moestro.hardware.nvidia_state import nvidia_states

    numbers = {
        vendor: [i for i, gpu in enumerate(inventory.gpus) if gpu.vendor == vendor]
        for vendor in ("nvidia", "amd")
    }
    found: list[GpuState] = []
    if own := numbers["nvidia"]:
        states = nvidia_states(root, nvml) or ()
        found += _numbered(own, [inventory.gpus[i] for i in own], states)
    if own := numbers["amd"]:
        states = amd_states(tuple(inventory.gpus[i] for i in own), root) or ()
        found += _numbered(own, [inventory.gpus[i] for i in own], states)
    return tuple(sorted(found, key=lambda state: state.index)) or None


def _numbered(
    numbers: Sequence[int], gpus: Sequence[Gpu], states: Sequence[GpuState]
) -> list[GpuState]:
    """The states with the inventory's numbers. Both list cards in the order of the slots, but the
    inventory may lack some: an integrated GPU, or one that was left out."""
    left = list(states)
    found = []
    for number, gpu in zip(numbers, gpus, strict=True):
        state = next((state for state in left if state.name == gpu.name), None)
        if state is not None:
            del left[: left.index(state) + 1]
            found.append(replace(state, index=number))
    return found
