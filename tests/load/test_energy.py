"""Counters of joules: the kernel's files and NVML, as a machine shows them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moestro.load.energy import Energy, EnergyMeter, rapl_zones


class NvmlError(Exception):
    pass


def nvml(*millijoules: int, fails: bool = False) -> Any:
    """Cards of which each tells the next number at each reading."""
    told = iter(millijoules)

    def read(handle: int) -> int:
        if fails:
            raise NvmlError
        return next(told)

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=read,
    )


NO_GPU = nvml(fails=True)


def zone(root: Path, folder: str, name: str, energy: str, most: str = "1000") -> Path:
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    (path / "energy_uj").write_text(f"{energy}\n")
    return path / "energy_uj"


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "10")
    zone(tmp_path, "intel-rapl:0:0", "core", "10")
    zone(tmp_path, "intel-rapl:0:1", "dram", "10")
    zone(tmp_path, "intel-rapl:1", "psys", "10")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", "10")
    zone(tmp_path, "intel-rapl:2", "package-1", "10", most="none")
    found = [one.path.parent.name for one in rapl_zones(tmp_path)]
    assert found == ["intel-rapl:0", "intel-rapl:0:1"]


def test_joules_across_a_wrap_around(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", "900", most="1000")
    meter = EnergyMeter(tmp_path, NO_GPU)
    counter.write_text("100")  # 200 more
    meter.sample()
    counter.write_text("50")  # 950 more
    found = meter.stop()
    assert found is not None
    assert found.cpu_joules == pytest.approx(1150e-6)
    assert found.gpu_joules is None
    assert found.joules == pytest.approx(1150e-6)


@pytest.mark.parametrize("text", ["", "x", "-5", "99999999999999999999999", "2000"])
def test_a_counter_that_stops_telling_makes_the_sum_unknown(tmp_path: Path, text: str) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", "1")
    meter = EnergyMeter(tmp_path, NO_GPU)
    counter.write_text(text)
    assert meter.stop() is None


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path, NO_GPU).stop() is None


def test_gpus(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path, nvml(5000, 8500)).stop() == Energy(None, 3.5)
    assert EnergyMeter(tmp_path, nvml(5000, 100)).stop() is None  # its driver began anew
