"""How NVIDIA GPUs fare now: through NVML, and the kernel for the link."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from moestro.hardware.amd import parse_link
from moestro.hardware.gpu import Link, Version
from moestro.hardware.gpu_state import GpuProcess, GpuState
from moestro.hardware.nvidia import within
from moestro.hardware.tools import read_text

Answer = TypeVar("Answer")

_TIMEOUT_SECONDS = 10.0

# NVML's bits of what lowers the clocks (`nvmlClocksEventReasons`) → our word. An idle card, clocks
# that the user set and cards that run in step are no trouble and have none.
_REASONS = {
    0x04: "power",
    0x20: "thermal",
    0x40: "thermal",
    0x80: "power-brake",
}
_HARDWARE_SLOWDOWN = 0x08
"""Set together with the bits of heat and power brake; on its own the cause is not told."""
_HARDWARE_CAUSES = 0x40 | 0x80

_MOST_PROCESSES = 1000
_FIRST_NAMESPACE = "pid:[4026531836]"
"""`PROC_PID_INIT_INO`: the kernel's own number of the first namespace of processes."""


def nvidia_states(root: Path, nvml: Any = None) -> tuple[GpuState, ...] | None:
    """Every card in NVML's order; None where NVML is absent, fails or does not answer in time.

    `nvml` stands for the module `pynvml`; `root` for `/`.
    """
    return _answered(nvml, lambda nvml, cards: _states(nvml, cards, root))


def nvidia_memory_of(pid: int, nvml: Any = None) -> tuple[int, int] | None:
    """Bytes that a process has on all cards together, and bytes that are free on those where it
    has some; None where NVML is absent or fails, and in a container that hides whose they are.

    `nvml` stands for the module `pynvml`.
    """
    return _answered(nvml, lambda _nvml, cards: _memory_of(pid, cards))


def _answered(nvml: Any, question: Callable[[Any, Sequence[_Card]], Answer]) -> Answer | None:
    """What NVML says of its cards; None where it is absent, fails or does not answer in time."""
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return None
        nvml = pynvml

    def ask() -> Answer | None:
        try:
            return _ask(nvml, question)
        except nvml.NVMLError:
            return None

    return within(_TIMEOUT_SECONDS, ask)


def _memory_of(pid: int, cards: Iterable[_Card]) -> tuple[int, int] | None:
    own = free = 0
    for card in cards:
        used = (_used_by_process(card) or {}).get(pid)
        memory = card.ask("nvmlDeviceGetMemoryInfo")
        if used and memory is not None:
            own, free = own + used, free + int(memory.free)
    return (own, free) if own else None


def parse_reasons(bits: int) -> tuple[str, ...]:
    """Words for NVML's bits, each once."""
    found = [word for bit, word in _REASONS.items() if bits & bit]
    if bits & _HARDWARE_SLOWDOWN and not bits & _HARDWARE_CAUSES:
        found.append("hardware-slowdown")
    return tuple(dict.fromkeys(found))


def parse_bus_id(text: str) -> str | None:
    """NVML's `00000000:0A:00.0` → the kernel's `0000:0a:00.0`."""
    found = re.fullmatch(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.([0-7])", text)
    if found is None:
        return None
    return f"{int(found[1], 16):04x}:{found[2]}:{found[3]}.{found[4]}".lower()


def read_link(device: Path) -> Link | None:
    """What a device's folder in `/sys/bus/pci/devices` says of its link."""
    names = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
    return parse_link(*(read_text(device / name) for name in names))


def _ask(nvml: Any, question: Callable[[Any, Sequence[_Card]], Answer]) -> Answer:
    nvml.nvmlInit()
    try:
        count = nvml.nvmlDeviceGetCount()
        cards = [_Card(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)]
        return question(nvml, cards)
    finally:
        nvml.nvmlShutdown()


def _states(nvml: Any, cards: Sequence[_Card], root: Path) -> tuple[GpuState, ...]:
    cuda = _driver_cuda(nvml)
    return tuple(_state(card, index, cuda, root) for index, card in enumerate(cards))


class _Card:
    """Questions about one card; None where this card or this driver has no answer."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def ask(self, function: str, *arguments: Any) -> Any:
        asked = getattr(self._nvml, function, None)  # an older binding may lack it
        if asked is None:
            return None
        try:
            return asked(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None

    def number(self, function: str, *arguments: Any, most: float) -> float | None:
        """Between 0 and `most`; anything else is not believed."""
        value = self.ask(function, *arguments)
        return float(value) if value is not None and 0 <= value <= most else None


def _state(card: _Card, index: int, cuda: Version | None, root: Path) -> GpuState:
    name = card.ask("nvmlDeviceGetName")
    pci = card.ask("nvmlDeviceGetPciInfo")
    bus_id = parse_bus_id(_text(getattr(pci, "busId", "")))
    busy = card.ask("nvmlDeviceGetUtilizationRates")
    bits = card.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:  # its name before CUDA 12.2
        bits = card.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    uncorrected, since_loaded = 1, 0
    errors = card.ask("nvmlDeviceGetTotalEccErrors", uncorrected, since_loaded)
    rows = card.ask("nvmlDeviceGetRemappedRows")
    mig = card.ask("nvmlDeviceGetMigMode")  # now, and after the next reset
    slowdown = 1  # NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    return GpuState(
        index=index,
        vendor="nvidia",
        name=_text(name) or "NVIDIA GPU",
        bus_id=bus_id,
        temperature_c=card.number("nvmlDeviceGetTemperature", 0, most=200),
        slowdown_c=card.number("nvmlDeviceGetTemperatureThreshold", slowdown, most=200) or None,
        power_watts=_watts(card.number("nvmlDeviceGetPowerUsage", most=1e7)),
        power_limit_watts=_watts(card.number("nvmlDeviceGetPowerManagementLimit", most=1e7)),
        default_power_limit_watts=_watts(
            card.number("nvmlDeviceGetPowerManagementDefaultLimit", most=1e7)
        ),
        busy=busy.gpu / 100 if busy is not None and 0 <= busy.gpu <= 100 else None,
        reasons=None if bits is None else parse_reasons(int(bits)),
        link=read_link(root / "sys/bus/pci/devices" / bus_id) if bus_id else None,
        uncorrected=None if errors is None else int(errors),
        remap_pending=None if rows is None else bool(rows[2]),
        processes=_processes(card, root),
        driver_cuda=cuda,
        divided=None if mig is None else mig[0] == 1,
    )


def _driver_cuda(nvml: Any) -> Version | None:
    try:
        number = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    except nvml.NVMLError:
        return None
    return (number // 1000, number % 1000 // 10)


def _processes(card: _Card, root: Path) -> tuple[GpuProcess, ...] | None:
    """Those that compute and those that draw, each once, the largest first."""
    found = _used_by_process(card)
    if found is None:
        return None
    listed = sorted(found.items(), key=lambda item: -(item[1] or 0))[:_MOST_PROCESSES]
    names = _names_are_true(root)
    return tuple(
        GpuProcess(pid, (read_text(root / f"proc/{pid}/comm").strip() or None) if names else None,
                   used)
        for pid, used in listed
    )  # fmt: skip


def _used_by_process(card: _Card) -> dict[int, int | None] | None:
    """Bytes by process; None where the card does not tell its processes."""
    asked = [card.ask(f"nvmlDeviceGet{kind}RunningProcesses") for kind in ("Compute", "Graphics")]
    if all(answer is None for answer in asked):
        return None
    found: dict[int, int | None] = {}
    for process in _flat(asked):
        used = process.usedGpuMemory
        known = found.get(int(process.pid))
        found[int(process.pid)] = int(used) if used is not None and used >= 0 else known
    return found


def _names_are_true(root: Path) -> bool:
    """In a container `/proc` counts processes in its own way, and NVML in that of the host."""
    try:
        return os.readlink(root / "proc/self/ns/pid") == _FIRST_NAMESPACE
    except OSError:
        return False


def _flat(lists: Iterable[Any]) -> Iterable[Any]:
    return (item for items in lists if items is not None for item in items)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _watts(milliwatts: float | None) -> float | None:
    return milliwatts / 1000 if milliwatts else None
