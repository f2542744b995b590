"""What is missing is one sentence, and the hint names what to install."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moestro.engine.build.toolchain import find_nvcc, find_toolchain
from moestro.errors import EngineError
from tests.engine.build.workshop import FakeTools, write_program


def trouble(**options: bool) -> EngineError:
    with pytest.raises(EngineError) as caught:
        find_toolchain("llama.cpp", **options)
    assert caught.value.code == "build-tools-missing"
    return caught.value


def test_everything_is_here(tools: FakeTools) -> None:
    found = find_toolchain("llama.cpp")
    assert (found.cmake, found.builder) == (tools.folder / "cmake", tools.folder / "ninja")
    assert (found.generator, found.cxx_name, found.nvcc) == ("Ninja", "pretend-c++ 14.2", None)


def test_tools_beside_our_python_count(tools: FakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tools.folder.parent))
    assert find_toolchain("llama.cpp").cmake == tools.folder / "cmake"


def test_make_where_there_is_no_ninja(tools: FakeTools) -> None:
    (tools.folder / "ninja").rename(tools.folder / "make")
    assert find_toolchain("llama.cpp").generator == "Unix Makefiles"


@pytest.mark.parametrize(
    ("gone", "said", "hint"),
    [
        ("cmake", "CMake is missing", "pip install cmake ninja"),
        ("ninja", "Neither ninja nor make", "pip install cmake ninja"),
        ("c++", "compiler for C and C++ is missing", "build-essential"),
        ("cc", "compiler for C and C++ is missing", "build-essential"),
    ],
)
def test_each_missing_tool_is_named(tools: FakeTools, gone: str, said: str, hint: str) -> None:
    (tools.folder / gone).unlink()
    write_program(tools.folder / "apt-get", "#!/bin/sh\n")
    error = trouble()
    assert said in error.sentence
    assert hint in (error.hint or "")


def test_an_old_cmake(tools: FakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CMAKE_VERSION", "3.9.6")
    assert trouble().sentence == "CMake 3.9 is too old: 3.14 is needed."


def test_a_cmake_that_does_not_run(tools: FakeTools) -> None:
    write_program(tools.folder / "cmake", "#!/bin/sh\nexit 127\n")
    assert "does not run" in trouble().sentence


def test_a_compiler_that_is_too_old(tools: FakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CXX_REFUSES", "-std=c++20")
    assert find_toolchain("llama.cpp").cxx.name == "c++"
    with pytest.raises(EngineError, match=r"cannot compile C\+\+20.*not here"):
        find_toolchain("ik_llama.cpp")


def test_the_users_own_compiler_comes_first(
    tools: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools.folder / "c++").rename(tools.folder / "mine")
    monkeypatch.setenv("CXX", "mine -fcolor-diagnostics")
    assert find_toolchain("llama.cpp").cxx == tools.folder / "mine"


def test_a_flag_is_tried(tools: FakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CXX_REFUSES", "-mavxvnni")
    found = find_toolchain("llama.cpp")
    assert (found.accepts("-mavx2"), found.accepts("-mavxvnni")) == (True, False)


def test_cuda_needs_nvcc(tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.engine.build.toolchain.find_nvcc", lambda: None)
    assert "nvcc is missing" in trouble(cuda=True).sentence
    monkeypatch.undo()
    home = tmp_path / "cuda" / "bin"
    home.mkdir(parents=True)
    write_program(home / "nvcc", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tools.folder))
    assert find_nvcc({"CUDA_HOME": str(home.parent)}) == home / "nvcc"
