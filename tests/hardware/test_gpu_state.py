"""How GPUs fare: a stand-in for NVML, and the kernel's files for the link and for AMD."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moestro.hardware import Gpu, Link, nvidia_state
from moestro.hardware.gpu_state import GpuProcess, read_gpu_states
from moestro.hardware.nvidia_state import nvidia_memory_of, parse_bus_id, parse_reasons
from moestro.units import GIB
from tests.hardware.machines import machine


class FakeError(Exception):
    pass


class FakeNvml:
    """Cards by name. `answers` by function: an exception is raised, a missing one no function."""

    NVMLError = FakeError

    def __init__(self, names: tuple[str, ...] = ("NVIDIA GeForce RTX 4090",), **answers: Any):
        self.names = names
        self.answers = {
            "nvmlSystemGetCudaDriverVersion_v2": 12080,
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:01:00.0"),
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetTemperatureThreshold": 90,
            "nvmlDeviceGetPowerUsage": 301_500,
            "nvmlDeviceGetPowerManagementLimit": 450_000,
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlDeviceGetPowerManagementDefaultLimit": 450_000,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=60),
            "nvmlDeviceGetCurrentClocksEventReasons": 0x4,
            "nvmlDeviceGetTotalEccErrors": FakeError("not supported"),
            "nvmlDeviceGetRemappedRows": (0, 1, 1, 0),
            "nvmlDeviceGetComputeRunningProcesses": [process(4242, 2 * GIB), process(7, None)],
            "nvmlDeviceGetGraphicsRunningProcesses": [process(900, GIB)],
            **answers,
        }
        self.shut_down = False

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.names[handle]

    def __getattr__(self, name: str) -> Any:
        try:
            answer = self.__dict__["answers"][name]
        except KeyError:
            raise AttributeError(name) from None

        def told(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return told


def process(pid: int, used: int | None) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def link(speed: str, width: str, max_speed: str, max_width: str) -> dict[str, str]:
    return {
        "current_link_speed": f"{speed} GT/s PCIe",
        "current_link_width": width,
        "max_link_speed": f"{max_speed} GT/s PCIe",
        "max_link_width": max_width,
    }


def under(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_a_busy_card_in_a_narrow_slot(tmp_path: Path):
    write(tmp_path, {
        **under("sys/bus/pci/devices/0000:01:00.0", link("16.0", "8", "16.0", "16")),
        "proc/4242/comm": "llama-server",
        "proc/900/comm": "Xorg",
    })  # fmt: skip
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    os.symlink("pid:[4026531836]", tmp_path / "proc/self/ns/pid")
    nvml = FakeNvml()
    states = read_gpu_states(machine(), root=tmp_path, nvml=nvml)
    assert states is not None
    (state,) = states
    assert state.bus_id == "0000:01:00.0"
    assert state.link is not None
    assert (state.link.width, state.link.max_width) == (8, 16)
    assert (state.temperature_c, state.slowdown_c, state.busy) == (61, 90, 0.97)
    assert (state.power_watts, state.power_limit_watts) == (301.5, 450)
    assert state.default_power_limit_watts == 450
    assert state.reasons == ("power",)
    assert (state.uncorrected, state.remap_pending, state.driver_cuda) == (None, True, (12, 8))
    assert state.processes == (
        GpuProcess(4242, "llama-server", 2 * GIB),
        GpuProcess(900, "Xorg", GIB),
        GpuProcess(7, None, None),
    )
    assert nvml.shut_down


def test_what_a_notebook_enforces_is_not_what_was_set(tmp_path: Path):
    """Its firmware moves the enforced limit about, and does not tell of any other."""
    nvml = FakeNvml(
        nvmlDeviceGetEnforcedPowerLimit=35_000,
        nvmlDeviceGetPowerManagementLimit=FakeError("not supported"),
        nvmlDeviceGetPowerManagementDefaultLimit=80_000,
    )
    states = read_gpu_states(machine(), root=tmp_path, nvml=nvml)
    assert states is not None
    assert states[0].power_limit_watts is None


@pytest.mark.parametrize(
    ("mode", "divided"), [([1, 1], True), ([0, 1], False), (FakeError("not supported"), None)]
)
def test_cards_that_mig_divides(mode: Any, divided: bool | None, tmp_path: Path):
    nvml = FakeNvml(nvmlDeviceGetMigMode=mode)
    states = read_gpu_states(machine(), root=tmp_path, nvml=nvml)
    assert states is not None
    assert states[0].divided is divided


def test_a_containers_proc_does_not_name_the_hosts_processes(tmp_path: Path):
    write(tmp_path, {"proc/4242/comm": "bash"})
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    os.symlink("pid:[4026532281]", tmp_path / "proc/self/ns/pid")
    states = read_gpu_states(machine(), root=tmp_path, nvml=FakeNvml())
    assert states is not None
    assert {found.name for found in states[0].processes or ()} == {None}


def test_a_card_that_answers_nothing_but_its_name(tmp_path: Path):
    silent = FakeNvml()
    silent.answers = {name: FakeError("not supported") for name in silent.answers}
    states = read_gpu_states(machine(), root=tmp_path, nvml=silent)
    assert states is not None
    (state,) = states
    assert state.name == "NVIDIA GeForce RTX 4090"
    told = {name: getattr(state, name) for name in state.__slots__}
    assert {name for name, value in told.items() if value is not None} == {
        "index", "vendor", "name",
    }  # fmt: skip


def test_answers_that_cannot_be_true(tmp_path: Path):
    nvml = FakeNvml(
        nvmlDeviceGetTemperature=4_294_967_295,
        nvmlDeviceGetTemperatureThreshold=0,
        nvmlDeviceGetPowerUsage=4_294_967_295,
        nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=4_294_967_295),
        nvmlDeviceGetPciInfo=SimpleNamespace(busId=b"../../../etc"),
    )
    states = read_gpu_states(machine(), root=tmp_path, nvml=nvml)
    assert states is not None
    (state,) = states
    assert (state.temperature_c, state.slowdown_c, state.power_watts) == (None, None, None)
    assert (state.busy, state.bus_id, state.link) == (None, None, None)


def test_the_name_of_the_reasons_in_older_drivers(tmp_path: Path):
    nvml = FakeNvml(
        nvmlDeviceGetCurrentClocksEventReasons=FakeError("no such function"),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x48,
    )
    states = read_gpu_states(machine(), root=tmp_path, nvml=nvml)
    assert states is not None
    assert states[0].reasons == ("thermal",)


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x2, ()),  # the user's own clocks
        (0x4, ("power",)),
        (0x20, ("thermal",)),
        (0x68, ("thermal",)),
        (0x88, ("power-brake",)),
        (0x8, ("hardware-slowdown",)),
    ],
)
def test_reasons(bits: int, words: tuple[str, ...]):
    assert parse_reasons(bits) == words


@pytest.mark.parametrize(
    ("text", "bus_id"),
    [
        ("00000000:0A:00.0", "0000:0a:00.0"),
        ("0002:01:00.0", "0002:01:00.0"),
        ("", None),
        ("0000:01:00.0/..", None),
    ],
)
def test_bus_ids(text: str, bus_id: str | None):
    assert parse_bus_id(text) == bus_id


def test_a_driver_that_fails_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nvml = FakeNvml()
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: (_ for _ in ()).throw(FakeError("off")))
    assert read_gpu_states(machine(), root=tmp_path, nvml=nvml) is None
    assert nvml.shut_down


def test_a_driver_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    over = threading.Event()
    monkeypatch.setattr(nvidia_state, "_TIMEOUT_SECONDS", 0.05)
    nvml = FakeNvml()
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: over.wait(20) and 0)
    assert read_gpu_states(machine(), root=tmp_path, nvml=nvml) is None
    over.set()


def test_a_machine_without_gpus_is_not_asked(tmp_path: Path):
    assert read_gpu_states(replace(machine(), gpus=()), root=tmp_path, nvml=object()) is None


def test_cards_that_the_inventory_lacks_take_no_ones_number(tmp_path: Path):
    names = ("NVIDIA GB10", "NVIDIA RTX A6000", "NVIDIA RTX A4000")
    gpus = (Gpu("nvidia", "NVIDIA RTX A6000"), Gpu("nvidia", "NVIDIA RTX A4000"))
    found = read_gpu_states(replace(machine(), gpus=gpus), root=tmp_path, nvml=FakeNvml(names))
    assert found is not None
    assert [(state.index, state.name) for state in found] == [
        (0, "NVIDIA RTX A6000"), (1, "NVIDIA RTX A4000"),
    ]  # fmt: skip


def test_two_cards_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    card = machine().gpus[0]
    nvml = FakeNvml((card.name, card.name))
    monkeypatch.setattr(
        nvml, "nvmlDeviceGetTemperature", lambda handle, _: 40 + handle, raising=False
    )
    found = read_gpu_states(replace(machine(), gpus=(card, card)), root=tmp_path, nvml=nvml)
    assert found is not None
    assert [(state.index, state.temperature_c) for state in found] == [(0, 40), (1, 41)]


WIDE = link("16.0", "16", "16.0", "16")
RADEON = {
    "vendor": "0x1002",
    "class": "0x030000",
    "mem_info_vram_total": str(24 * GIB),
    "gpu_busy_percent": "99",
    **WIDE,
    "hwmon/hwmon4/name": "amdgpu",
    "hwmon/hwmon4/temp1_input": "71000",
    "hwmon/hwmon4/temp1_crit": "100000",
    "hwmon/hwmon4/power1_average": "251000000",
    "hwmon/hwmon4/power1_cap": "303000000",
    "hwmon/hwmon4/power1_cap_default": "339000000",
}
PORT = "sys/devices/pci0000:00/0000:00:01.1"
CARD = f"{PORT}/0000:03:00.0/0000:04:00.0/0000:05:00.0"
RX = Gpu("amd", "AMD Radeon RX 7900 XTX", 24 * GIB, target="gfx1100")


def amd_root(root: Path) -> Path:
    """Root port (the processor's), the card's switch (two bridges), the GPU; an APU beside it."""
    bridge = {"vendor": "0x1002", "class": "0x060400"}
    write(root, {
        **under(PORT, {"vendor": "0x1022", "class": "0x060400"}),
        **under(f"{PORT}/0000:03:00.0", {**bridge, **link("16.0", "8", "16.0", "16")}),
        **under(f"{PORT}/0000:03:00.0/0000:04:00.0", {**bridge, **WIDE}),
        **under(CARD, RADEON),
        **under("sys/devices/pci0000:00/0000:0f:00.0",
                {"vendor": "0x1002", "class": "0x030000", "mem_info_vram_total": str(GIB // 2)}),
    })  # fmt: skip
    for number, device in enumerate((CARD, "sys/devices/pci0000:00/0000:0f:00.0")):
        card = root / f"sys/class/drm/card{number}"
        card.mkdir(parents=True)
        os.symlink(root / device, card / "device")
    (root / "sys/class/drm/card0-DP-1").mkdir()
    return root


def test_a_radeon_in_a_narrow_slot(tmp_path: Path):
    found = read_gpu_states(replace(machine(), gpus=(RX,)), root=amd_root(tmp_path))
    assert found is not None
    (state,) = found
    assert (state.vendor, state.name, state.bus_id) == ("amd", RX.name, "0000:05:00.0")
    # The switch's upper port is what sits in the slot; the GPU's own link never narrows.
    assert state.link == Link(4, 8, 4, 16).with_peak()
    assert (state.temperature_c, state.slowdown_c, state.busy) == (71, 100, 0.99)
    assert state.power_watts == pytest.approx(251)
    assert state.power_limit_watts == pytest.approx(303)
    assert state.default_power_limit_watts == pytest.approx(339)


def test_radeons_that_cannot_be_told_apart(tmp_path: Path):
    other = replace(RX, memory_bytes=16 * GIB)
    assert read_gpu_states(replace(machine(), gpus=(other,)), root=amd_root(tmp_path)) is None


def test_a_radeon_without_sensors(tmp_path: Path):
    device = "sys/devices/pci0000:00/0000:05:00.0"
    write(tmp_path, under(device, {"vendor": "0x1002", "gpu_busy_percent": "many"}))
    (tmp_path / "sys/class/drm/card1").mkdir(parents=True)
    os.symlink(tmp_path / device, tmp_path / "sys/class/drm/card1/device")
    found = read_gpu_states(replace(machine(), gpus=(RX,)), root=tmp_path)
    assert found is not None
    assert (found[0].temperature_c, found[0].busy, found[0].link) == (None, None, None)


def test_what_a_process_has_of_all_cards() -> None:
    nvml = FakeNvml()
    nvml.answers["nvmlDeviceGetMemoryInfo"] = SimpleNamespace(free=5 * GIB)
    cards = nvml.nvmlDeviceGetCount()
    assert nvidia_memory_of(4242, nvml) == (cards * 2 * GIB, cards * 5 * GIB)
    assert nvidia_memory_of(7, nvml) is None, "what it has is hidden"
    assert nvidia_memory_of(1, nvml) is None
