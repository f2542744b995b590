"""How AMD GPUs fare now: what the kernel's driver `amdgpu` says in `/sys`."""

from __future__ import annotations

import re
from pathlib import Path

from moestro.hardware.amd import read_card
from moestro.hardware.gpu import Gpu, Link
from moestro.hardware.gpu_state import GpuState
from moestro.hardware.nvidia_state import read_link
from moestro.hardware.tools import read_text

_VENDOR = "0x1002"
_MOST_STEPS = 4


def amd_states(gpus: tuple[Gpu, ...], root: Path) -> tuple[GpuState, ...] | None:
    """One state for each of `gpus`, in their order, which is that of the slots.

    An integrated GPU that the inventory left out is known by its memory; None where the kernel's
    cards still are not as many, so that nothing tells which is which.
    """
    drm = root / "sys/class/drm"
    folders = [
        folder
        for folder in drm.glob("card*/device")
        if re.fullmatch(r"card\d+", folder.parent.name)
        and read_text(folder / "vendor").strip() == _VENDOR
    ]
    folders.sort(key=lambda folder: read_card(folder).slot)
    if len(folders) > len(gpus):
        sizes = {gpu.memory_bytes for gpu in gpus}
        folders = [folder for folder in folders if read_card(folder).memory_bytes in sizes]
    if not folders or len(folders) != len(gpus):
        return None
    return tuple(
        _state(index, gpu, folder)
        for index, (gpu, folder) in enumerate(zip(gpus, folders, strict=True))
    )


def slot_link(device: Path) -> Link | None:
    """The link between slot and card. Cards since Navi carry a switch: the GPU's own link ends
    there and always runs at its best, and the switch's upper port (a bridge that is AMD's graphics
    vendor's as well; processors' bridges have another number) sits in the slot."""
    port = device.resolve()
    for _ in range(_MOST_STEPS):
        above = port.parent
        is_bridge = read_text(above / "class").strip().startswith("0x0604")
        if not is_bridge or read_text(above / "vendor").strip() != _VENDOR:
            break
        port = above
    return read_link(port)


def _state(index: int, gpu: Gpu, folder: Path) -> GpuState:
    sensors = next(iter(sorted(folder.glob("hwmon/hwmon*"))), folder / "hwmon")
    average = _number(sensors / "power1_average", most=10**10)
    busy = _number(folder / "gpu_busy_percent", most=100)
    slot = read_card(folder).slot
    return GpuState(
        index=index,
        vendor="amd",
        name=gpu.name,
        bus_id=slot if re.fullmatch(r"[0-9a-f]{4,8}(:[0-9a-f]{2}){2}\.[0-7]", slot) else None,
        temperature_c=_scaled(_number(sensors / "temp1_input", most=200_000), 1e-3),
        slowdown_c=_scaled(_number(sensors / "temp1_crit", most=200_000) or None, 1e-3),
        power_watts=_scaled(
            _number(sensors / "power1_input", most=10**10) if average is None else average, 1e-6
        ),
        power_limit_watts=_scaled(_number(sensors / "power1_cap", most=10**10) or None, 1e-6),
        default_power_limit_watts=_scaled(
            _number(sensors / "power1_cap_default", most=10**10) or None, 1e-6
        ),
        busy=_scaled(busy, 1e-2),
        link=None if gpu.shared else slot_link(folder),
    )


def _number(path: Path, *, most: int) -> int | None:
    text = read_text(path).strip()
    number = int(text) if re.fullmatch(r"\d{1,19}", text, re.ASCII) else None
    return number if number is not None and number <= most else None


def _scaled(number: int | None, factor: float) -> float | None:
    return None if number is None else number * factor
