from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from moestro.hardware import graphics
from moestro.hardware.graphics import (
    Gpu,
    Graphics,
    find_graphics,
    parse_cuda_version,
    parse_kfd_properties,
    parse_nvidia_list,
    parse_rocm_version,
    parse_rocminfo,
)
from moestro.hardware.tools import run_tool
from moestro.units import MIB

NVIDIA_TABLE = """\
Sat Nov 21 10:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.86.15              Driver Version: 570.86.15      CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
"""

ROCMINFO = """\
ROCk module version 6.12.12 is loaded
=====================
HSA System Attributes
=====================
Runtime Version:         1.15
==========
HSA Agents
==========
*******
Agent 1
*******
  Name:                    AMD Ryzen 9 7950X 16-Core Processor
  Uuid:                    CPU-XX
  Marketing Name:          AMD Ryzen 9 7950X 16-Core Processor
  Device Type:             CPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: FINE GRAINED
      Size:                    65000000(0x3dfd240) KB
*******
Agent 2
*******
  Name:                    gfx1100
  Uuid:                    GPU-0123456789abcdef
  Marketing Name:          AMD Radeon RX 7900 XTX
  Device Type:             GPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: COARSE GRAINED
      Size:                    25149440(0x17fc000) KB
    Pool 2
      Segment:                 GROUP
      Size:                    64(0x40) KB
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx1100
*** Done ***
"""


def test_nvidia_list():
    text = "NVIDIA GeForce RTX 4090, 24564, 8.9\nNVIDIA GB10, [N/A], 12.1\n"
    assert parse_nvidia_list(text) == (
        Gpu("nvidia", "NVIDIA GeForce RTX 4090", 24564 * MIB, capability=(8, 9)),
        Gpu("nvidia", "NVIDIA GB10", None, capability=(12, 1)),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        "No devices were found\n",
        'Field "compute_cap" is not a valid field to query.\n',
        "a,b,c\n,,\n",
    ],
)
def test_nvidia_list_that_is_none(text: str):
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


def test_rocminfo_lists_gpus_only():
    (gpu,) = parse_rocminfo(ROCMINFO)
    assert gpu == Gpu("amd", "AMD Radeon RX 7900 XTX", 25149440 * 1024, target="gfx1100")
    assert parse_rocminfo("ROCk module is NOT loaded, possibly no GPU devices\n") == ()


@pytest.mark.parametrize(
    ("number", "target"),
    [
        (110000, "gfx1100"),
        (100300, "gfx1030"),
        (90010, "gfx90a"),
        (110501, "gfx1151"),
        (120001, "gfx1201"),
        (90500, "gfx950"),
        (0, None),
    ],
)
def test_kernel_topology(number: int, target: str | None):
    text = f"cpu_cores_count 0\nsimd_count 192\ngfx_target_version {number}\nvendor_id 4098\n"
    assert parse_kfd_properties(text) == target


def test_rocm_version():
    assert parse_rocm_version("7.2.4-93\n") == (7, 2)
    assert parse_rocm_version("") is None


def fake_tool(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(graphics, "_KFD_NODES", tmp_path / "no-nodes")
    monkeypatch.setattr(graphics, "_ROCM_VERSION", tmp_path / "no-version")
    return tmp_path


def test_a_machine_with_an_nvidia_gpu(tools: Path):
    fake_tool(
        tools,
        "nvidia-smi",
        'case "$1" in --query-gpu=*) echo "NVIDIA H200, 143771, 9.0";; '
        '*) echo "CUDA Version: 13.2";; esac',
    )
    fake_tool(tools, "rocminfo", "exit 1")
    assert find_graphics() == Graphics(
        gpus=(Gpu("nvidia", "NVIDIA H200", 143771 * MIB, capability=(9, 0)),), cuda=(13, 2)
    )


def test_an_amd_gpu_without_rocm_is_seen_through_the_kernel(tools: Path):
    fake_tool(tools, "nvidia-smi", "exit 9")
    fake_tool(tools, "rocminfo", "exit 1")
    for number, version in enumerate((0, 110000)):
        node = tools / "no-nodes" / str(number)
        node.mkdir(parents=True)
        (node / "properties").write_text(f"gfx_target_version {version}\n")
    found = find_graphics()
    assert [gpu.target for gpu in found.gpus] == ["gfx1100"]
    assert found.rocm is None


def test_tools_that_lie_find_nothing(tools: Path):
    fake_tool(tools, "nvidia-smi", "head -c 100000 /dev/urandom")
    fake_tool(tools, "rocminfo", "printf 'Agent 1'; exit 0")
    assert find_graphics().gpus == ()


def test_a_tool_that_hangs_is_given_up(tools: Path):
    fake_tool(tools, "stuck", "exec sleep 60")
    assert run_tool("stuck", timeout_seconds=0.2) is None


def test_an_absent_tool(tools: Path):
    assert run_tool("no-such-tool-here") is None
