from __future__ import annotations

import os
import platform

import psutil
import pytest

from moestro.hardware import Gpu, Graphics, this_inventory, this_machine
from moestro.hardware.measure.figure import figure_of
from moestro.hardware.measured import Measurements, keep
from moestro.units import GIB, MIB


def test_this_machine_agrees_with_the_system():
    inventory = this_inventory(gpus=False)
    assert inventory.source == "this machine"
    assert inventory.name is None
    assert inventory.system == platform.system()
    assert inventory.memory.total_bytes == psutil.virtual_memory().total
    assert inventory.gpus == ()
    (home, *_) = inventory.disks
    assert home.free_bytes is not None
    assert home.free_bytes <= psutil.disk_usage(os.path.expanduser("~")).total


def test_drivers_are_asked_once(monkeypatch: pytest.MonkeyPatch):
    asked = []
    card = Gpu("nvidia", "NVIDIA GeForce RTX 4090", 24 * GIB, free_bytes=GIB)

    def graphics() -> Graphics:
        asked.append(True)
        return Graphics(gpus=(card,))

    monkeypatch.setattr(this_machine, "find_graphics", graphics)
    (gpu,) = this_inventory().gpus
    assert asked == [True]
    assert gpu.free_bytes == GIB
    # The driver did not tell these; the maker does.
    assert gpu.tflops_f16 == 165.2
    assert gpu.bandwidth is not None
    assert gpu.bandwidth.source == "catalogue"


def test_a_gpu_of_unknown_memory_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    found = Graphics(gpus=(Gpu("amd", "AMD gfx1100"),))
    monkeypatch.setattr(this_machine, "find_graphics", lambda: found)
    inventory = this_inventory()
    assert inventory.gpus[0].memory_bytes is None
    (finding,) = [found for found in inventory.findings if found.code == "gpu-memory-unknown"]
    assert "unless --gpu-layers says so" in (finding.fix or "")


def test_an_integrated_gpu_beside_a_discrete_one_is_left_out(monkeypatch: pytest.MonkeyPatch):
    card = Gpu("amd", "Radeon RX 7900 XTX", 24 * GIB, target="gfx1100")
    inside = Gpu("amd", "Radeon 610M", 512 * MIB, target="gfx1036", shared=True)
    monkeypatch.setattr(this_machine, "find_graphics", lambda: Graphics(gpus=(inside, card)))
    inventory = this_inventory()
    assert [gpu.name for gpu in inventory.gpus] == ["Radeon RX 7900 XTX"]
    assert not inventory.memory.unified
    (finding,) = [found for found in inventory.findings if "integrated" in found.code]
    assert finding.evidence == "Radeon 610M"


def test_integrated_gpus_alone_stay(monkeypatch: pytest.MonkeyPatch):
    inside = Gpu("amd", "Radeon 8060S", GIB, target="gfx1151", shared=True)
    monkeypatch.setattr(this_machine, "find_graphics", lambda: Graphics(gpus=(inside,)))
    inventory = this_inventory()
    assert [gpu.name for gpu in inventory.gpus] == ["Radeon 8060S"]
    assert inventory.memory.unified
    assert not [found for found in inventory.findings if "integrated" in found.code]


def test_a_gpu_in_the_hosts_memory(monkeypatch: pytest.MonkeyPatch):
    found = Graphics(gpus=(Gpu("nvidia", "NVIDIA GB10", shared=True),))
    monkeypatch.setattr(this_machine, "find_graphics", lambda: found)
    inventory = this_inventory()
    assert inventory.memory.unified
    assert inventory.gpus[0].memory_bytes == inventory.memory.total_bytes
    assert inventory.memory.bandwidth is not None
    assert inventory.memory.bandwidth.bytes_per_second == 273e9


def test_what_was_measured_is_merged_in():
    before = this_inventory(gpus=False)
    assert before.memory.bandwidth is None or before.memory.bandwidth.source != "measured"
    figures = tuple(
        figure_of("memory-read", [rate], threads=threads, size_bytes=GIB, how="")
        for threads, rate in ((1, 10e9), (2, 18e9))
    )
    keep(before, Measurements(memory=figures))
    found = this_inventory(gpus=False).memory.bandwidth
    assert found is not None
    assert (found.source, found.bytes_per_second) == ("measured", 18e9)
