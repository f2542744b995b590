"""Joules that this machine spent, where it tells.

Processors: the kernel's powercap zones of RAPL (Intel and AMD), packages and memory; most systems
let only root read them. GPUs: NVML's total energy (Volta and later).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moestro.hardware.nvidia import within
from moestro.hardware.tools import read_text

SAMPLE_SECONDS = 20.0
"""How often the counters of RAPL are read: they wrap around after 65 kJ on some machines, which a
large server spends in two minutes."""

_NVML_SECONDS = 5.0
_ZONES = "sys/class/powercap"
_MOST_ZONES = 64


@dataclass(frozen=True, slots=True)
class Energy:
    """Of the whole machine, whoever spent it. None where nothing can be read."""

    cpu_joules: float | None = None
    gpu_joules: float | None = None

    @property
    def joules(self) -> float:
        return (self.cpu_joules or 0.0) + (self.gpu_joules or 0.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "cpu_joules": self.cpu_joules,
            "gpu_joules": self.gpu_joules,
            "joules": self.joules,
        }


@dataclass(frozen=True, slots=True)
class Zone:
    """A counter of RAPL in microjoules; after `range_uj` it begins at 0 again."""

    path: Path
    range_uj: int


class EnergyMeter:
    """Reads when it is made, at each `sample` and at `stop`."""

    def __init__(self, root: Path = Path("/"), nvml: Any = None) -> None:
        self._zones = {zone: counter for zone in rapl_zones(root)
                       if (counter := _counter(zone)) is not None}  # fmt: skip
        self._cpu_uj = 0 if self._zones else None
        self._read_gpus = _gpu_reader(nvml)
        self._gpus_at_start = self._read_gpus()

    def sample(self) -> None:
        """Adds what was spent since the last time; at least once per wrap-around."""
        if self._cpu_uj is None:
            return
        for zone, before in tuple(self._zones.items()):
            now = _counter(zone)
            if now is None:
                self._cpu_uj = None  # no longer readable: a part is not the whole
                return
            self._cpu_uj += now - before if now >= before else now - before + zone.range_uj
            self._zones[zone] = now

    def stop(self) -> Energy | None:
        """None where nothing on this machine tells."""
        self.sample()
        gpus = self._read_gpus()
        started = self._gpus_at_start
        gpu_joules = None
        if started is not None and gpus is not None and gpus >= started:
            gpu_joules = (gpus - started) / 1000
        cpu_joules = None if self._cpu_uj is None else self._cpu_uj / 1e6
        if cpu_joules is None and gpu_joules is None:
            return None
        return Energy(cpu_joules, gpu_joules)


def rapl_zones(root: Path) -> tuple[Zone, ...]:
    """Packages, and memory beside them. Cores lie within their package, and `psys` counts the
    packages a second time."""
    zones = []
    for folder in sorted((root / _ZONES).glob("intel-rapl:*"))[:_MOST_ZONES]:
        name = read_text(folder / "name").strip()
        is_package = name.startswith("package") and folder.name.count(":") == 1
        most = _whole(folder / "max_energy_range_uj")
        if (is_package or name == "dram") and most is not None:
            zones.append(Zone(folder / "energy_uj", most))
    return tuple(zones)


def _counter(zone: Zone) -> int | None:
    value = _whole(zone.path)
    return value if value is not None and value <= zone.range_uj else None


def _whole(path: Path) -> int | None:
    text = read_text(path).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _gpu_reader(nvml: Any) -> Callable[[], int | None]:
    """Millijoules of all GPUs since their driver was loaded; None where one does not tell."""
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return lambda: None
        nvml = pynvml

    def ask() -> int | None:
        try:
            nvml.nvmlInit()
            try:
                handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
                read = [int(nvml.nvmlDeviceGetTotalEnergyConsumption(one)) for one in handles]
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError:
            return None
        return sum(read) if read else None

    return lambda: within(_NVML_SECONDS, ask)
