from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moestro.hardware import amd, graphics
from moestro.hardware.graphics import find_graphics
from moestro.hardware.tools import read_text, run_tool
from moestro.units import MIB


def fake_tool(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine with only the tools that a test makes."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = amd.find_amd
    monkeypatch.setattr(
        graphics,
        "find_amd",
        lambda: found(tmp_path / "no-nodes", tmp_path / "no-cards", tmp_path / "no-version"),
    )
    return tmp_path


def test_a_machine_with_an_nvidia_gpu(tools: Path):
    fake_tool(
        tools,
        "nvidia-smi",
        'case "$1" in --query-gpu=*) echo "NVIDIA H200, 143771, 9000, 9.0, 5, 16, 5, 16, Disabled"'
        ';; *) echo "CUDA Version: 13.2";; esac',
    )
    fake_tool(tools, "rocminfo", "exit 1")
    found = find_graphics()
    assert [(gpu.name, gpu.memory_bytes) for gpu in found.gpus] == [("NVIDIA H200", 143771 * MIB)]
    assert found.cuda == (13, 2)
    assert found.findings == ()


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


def test_an_absent_tool_and_an_absent_file(tmp_path: Path):
    assert run_tool("no-such-tool-here") is None
    assert read_text(tmp_path / "none") == ""
    assert read_text(tmp_path) == ""  # a folder


def test_the_set_up_can_ask_before_anything_is_installed():
    """`find_graphics` works with the standard library alone."""
    source = Path(graphics.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); from moestro.hardware.graphics " \
           "import find_graphics; print(type(find_graphics()).__name__)"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "Graphics"), done.stderr
