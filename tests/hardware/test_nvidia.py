"""NVIDIA: a stand-in for NVML, and lines as `nvidia-smi` prints them."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from moestro.hardware import nvidia
from moestro.hardware.gpu import Gpu
from moestro.hardware.nvidia import (
    Raw,
    believe,
    find_nvidia,
    parse_cuda_version,
    parse_nvidia_list,
    read_nvml,
)
from moestro.units import GIB, MIB

NVIDIA_TABLE = """\
Sat Nov 21 10:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.86.15              Driver Version: 570.86.15      CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
"""

# Documented form: csv,noheader,nounits. A desktop card with a screen, idle; a server's; a Spark.
LIST = """\
NVIDIA GeForce RTX 4090, 24564, 23028, 8.9, 1, 16, 4, 16, Enabled
NVIDIA H200, 143771, 143166, 9.0, 5, 16, 5, 16, Disabled
NVIDIA GB10, [N/A], [N/A], 12.1, [N/A], [N/A], [N/A], [N/A], Disabled
"""


@pytest.mark.parametrize("free_bytes", [-1 << 20, 1 << 60])
def test_impossible_free_memory_of_unknown_memory(free_bytes: int):
    gpu, (finding,) = believe(Raw("NVIDIA GB10", None, free_bytes))
    assert (gpu.memory_bytes, gpu.free_bytes, gpu.shared) == (None, None, True)
    assert finding.evidence == f"{free_bytes:,} bytes free of an unknown size"


@pytest.mark.parametrize("number", ["9" * 5000, "१२"])
def test_numbers_that_no_driver_means(number: str):
    (raw,) = parse_nvidia_list(f"NVIDIA H200, {number}, 5, 9.0, 5, 16, 5, 16, Disabled\n")
    assert raw.total_bytes is None


def test_list():
    desktop, server, spark = (believe(raw)[0] for raw in parse_nvidia_list(LIST))
    assert (desktop.name, desktop.memory_bytes) == ("NVIDIA GeForce RTX 4090", 24564 * MIB)
    assert desktop.free_bytes == 23028 * MIB
    assert desktop.capability == (8, 9)
    assert desktop.display is True
    assert desktop.link is not None
    # Idle links fall to generation 1; what counts is what it does under load.
    assert desktop.link.generation == 1
    assert desktop.link.loaded_generation == 4
    assert desktop.link.bandwidth is not None
    assert desktop.link.bandwidth.detail == "PCIe 4.0 x16"
    assert server.display is False
    assert (spark.memory_bytes, spark.free_bytes, spark.link) == (None, None, None)
    assert spark.shared
    assert not desktop.shared


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        "No devices were found\n",
        'Field "compute_cap" is not a valid field to query.\n',
        "a,b,c\n,,\n,,,,,,,,\n",
        "NVIDIA H200, 143771, 9.0\n",
    ],
)
def test_list_that_is_none(text: str):
    assert parse_nvidia_list(text) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NVIDIA_TABLE, (12, 8)),
        ("| NVIDIA-SMI 590.44  KMD Version: 590.44  CUDA UMD Version: 13.2 |", (13, 2)),
        ("CUDA Version: N/A", None),
        ("", None),
    ],
)
def test_cuda_version(text: str, expected: tuple[int, int] | None):
    assert parse_cuda_version(text) == expected


@pytest.mark.parametrize(
    ("total_bytes", "free_bytes", "believed", "lies"),
    [
        (24 * GIB, 20 * GIB, (24 * GIB, 20 * GIB), 0),
        (24 * GIB, 0, (24 * GIB, 0), 0),
        (24 * GIB, 25 * GIB, (24 * GIB, None), 1),
        (24 * GIB, -1, (24 * GIB, None), 1),
        (0, 0, (None, None), 1),
        (-1, 5, (None, None), 1),
        (1 << 60, 5, (None, None), 1),
        (None, None, (None, None), 0),
        (None, GIB, (None, None), 0),
    ],
)
def test_what_cannot_be_true_is_unknown_and_a_finding(
    total_bytes: int | None,
    free_bytes: int | None,
    believed: tuple[int | None, int | None],
    lies: int,
):
    gpu, findings = believe(Raw("X", total_bytes, free_bytes))
    assert (gpu.memory_bytes, gpu.free_bytes) == believed
    assert [finding.code for finding in findings] == ["gpu-tool-lies"] * lies
    assert not gpu.shared  # a card that lies is not one that shares


def test_links_that_cannot_be():
    gpu, _ = believe(Raw("X", generation=0, width=17, max_generation=99, max_width=-1))
    assert gpu.link is None
    gpu, _ = believe(Raw("X", generation=7, width=16, max_generation=7, max_width=16))
    assert gpu.link is not None
    assert gpu.link.bandwidth is None  # its rate is not known here


class FakeError(Exception):
    pass


def fake_nvml(**answers: Any) -> Any:
    """NVML with one card; an answer that is an exception is raised."""

    def answering(value: Any) -> Any:
        def answer(*_: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    unsupported = FakeError("not supported")
    given = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetCudaDriverVersion_v2": 13020,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=150754820096, free=150_000_000_000),
        "nvmlDeviceGetCudaComputeCapability": (9, 0),
        "nvmlDeviceGetDisplayActive": 0,
        "nvmlDeviceGetCurrPcieLinkGeneration": 5,
        "nvmlDeviceGetCurrPcieLinkWidth": 16,
        "nvmlDeviceGetMaxPcieLinkGeneration": 5,
        "nvmlDeviceGetMaxPcieLinkWidth": 16,
        "nvmlDeviceGetMaxClockInfo": 3201,
        "nvmlDeviceGetMemoryBusWidth": 6144,
        **answers,
    }
    functions = {name: answering(unsupported if value is ... else value)
                 for name, value in given.items()}  # fmt: skip
    return SimpleNamespace(NVMLError=FakeError, NVML_CLOCK_MEM=2, **functions)


def install(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)


def test_nvml(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, fake_nvml())
    monkeypatch.setattr(nvidia, "run_tool", lambda *_: pytest.fail("nvidia-smi was asked too"))
    found = find_nvidia()
    (gpu,) = found.gpus
    assert found.cuda == (13, 2)
    assert found.findings == ()
    assert (gpu.memory_bytes, gpu.free_bytes) == (150754820096, 150_000_000_000)
    assert gpu.capability == (9, 0)
    assert gpu.display is False
    assert gpu.bandwidth is not None
    # The maker states 4.8 TB/s.
    assert gpu.bandwidth.bytes_per_second == pytest.approx(4.9e12, rel=0.01)
    assert gpu.link is not None
    assert gpu.link.bandwidth is not None
    assert gpu.link.bandwidth.bytes_per_second == pytest.approx(63e9, rel=0.01)


def test_nvml_of_a_spark_tells_no_memory(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, fake_nvml(
        nvmlDeviceGetName=b"NVIDIA GB10",
        nvmlDeviceGetMemoryInfo=...,
        nvmlDeviceGetDisplayActive=...,
        nvmlDeviceGetMemoryBusWidth=...,
        nvmlDeviceGetCurrPcieLinkGeneration=...,
        nvmlDeviceGetMaxPcieLinkGeneration=...,
    ))  # fmt: skip
    (gpu,) = find_nvidia().gpus
    assert (gpu.name, gpu.memory_bytes, gpu.shared) == ("NVIDIA GB10", None, True)
    assert gpu.display is None
    assert gpu.bandwidth is None


def test_nvml_that_lies(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, fake_nvml(nvmlDeviceGetMemoryInfo=SimpleNamespace(total=0, free=0)))
    found = find_nvidia()
    assert found.gpus[0].memory_bytes is None
    assert [finding.code for finding in found.findings] == ["gpu-tool-lies"]


def test_nvml_that_fails_leaves_it_to_the_tool(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, fake_nvml(nvmlInit=FakeError("driver not loaded")))
    asked = []

    def tool(*command: str) -> str:
        asked.append(command)
        return LIST if len(command) > 1 else NVIDIA_TABLE

    monkeypatch.setattr(nvidia, "run_tool", tool)
    found = find_nvidia()
    assert len(found.gpus) == 3
    assert found.cuda == (12, 8)
    assert len(asked) == 2


def test_nvml_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()
    module = fake_nvml()
    module.nvmlInit = lambda: release.wait(30)
    install(monkeypatch, module)
    monkeypatch.setattr(nvidia, "_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(nvidia, "run_tool", lambda *_: None)
    try:
        assert find_nvidia().gpus == ()
    finally:
        release.set()


def test_no_binding_and_no_tool(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, None)  # as Python marks a module that cannot be imported
    monkeypatch.setattr(nvidia, "run_tool", lambda *_: None)
    assert find_nvidia() == nvidia.NvidiaFound()


def test_nvml_is_shut_down_also_after_an_error():
    ended = []
    module = fake_nvml(nvmlDeviceGetCount=FakeError("lost"))
    module.nvmlShutdown = lambda: ended.append(True)
    with pytest.raises(FakeError):
        read_nvml(module)
    assert ended == [True]


def test_the_name_may_hold_commas():
    text = "Some, odd card, 1024, 512, 7.5, 3, 16, 3, 16, Disabled\n"
    (raw,) = parse_nvidia_list(text)
    assert believe(raw)[0] == Gpu(
        "nvidia",
        "Some, odd card",
        GIB,
        capability=(7, 5),
        free_bytes=GIB // 2,
        link=believe(raw)[0].link,
        display=False,
    )
