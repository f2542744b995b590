"""Progress, failures and interrupts, with tools that only pretend."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from moestro.engine.build.compile import (
    JOB_BYTES,
    compile_targets,
    configure,
    job_count,
    parse_progress,
)
from moestro.engine.build.recipe import Recipe
from moestro.engine.build.toolchain import find_toolchain
from moestro.errors import EngineError
from tests.engine.build.workshop import FakeTools


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("[12/88] Building CXX object x.o", (12, 88)),
        ("[ 34%] Building CXX object x.o", (34, 100)),
        ("[100%] Built target llama-server", (100, 100)),
        ("[99/88] strange", None),
        ("[134%] strange", None),
        ("note: [12/88]", None),
        ("", None),
    ],
)
def test_progress_is_read_from_both_tools(line: str, step: tuple[int, int] | None) -> None:
    assert parse_progress(line) == step


def test_jobs_are_as_many_as_cores_and_memory_allow() -> None:
    assert job_count(None, 8, 100 * JOB_BYTES) == 8
    assert job_count(None, 8, 3 * JOB_BYTES) == 3
    assert job_count(5, 8, 3 * JOB_BYTES) == 5
    with pytest.raises(EngineError, match=r"takes about 1\.50 GiB of memory, and 512 MiB is free"):
        job_count(5, 8, 512 << 20)


def build(tmp_path: Path, advance: object = None) -> Path:
    tools = find_toolchain("llama.cpp")
    folder, log = tmp_path / "build", tmp_path / "build.log"
    configure(tools, Recipe({}, ()), tmp_path, folder, log, held=None)
    compile_targets(tools, folder, ["llama-server"], 2, log, advance)  # type: ignore[arg-type]
    return log


def test_steps_are_told_and_everything_said_is_kept(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-j64 --jobserver-auth=3,4")
    steps: list[tuple[int, int]] = []
    log = build(tmp_path, lambda *step: steps.append(step)).read_text()
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert "-- Configuring done" in log
    assert "part3.cpp.o" in log
    assert (tmp_path / "build" / "makeflags").read_text().strip() == "unset"


@pytest.mark.parametrize(
    ("how", "sentence", "hint"),
    [
        ("fail", "ggml.c:7:3: error: 'x' undeclared (first use here)", "build.log"),
        ("killed", "Killed signal terminated program cc1plus", "--jobs 1"),
        ("silent", "exit status 3", "build.log"),
    ],
)
def test_a_failure_shows_its_first_error(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    how: str, sentence: str, hint: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("FAKE_STOP_AT", "2")
    monkeypatch.setenv("FAKE_STOP_HOW", how)
    with pytest.raises(EngineError) as caught:
        build(tmp_path)
    assert sentence in caught.value.sentence
    assert hint in (caught.value.hint or "")
    assert "'y'" not in caught.value.sentence


def test_cmakes_complaint_says_where_and_what(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CMAKE_FAILS", "1")
    with pytest.raises(EngineError, match=r"CMake failed: .*CMakeLists.txt:12.* No OpenMP here\."):
        build(tmp_path)


def test_an_interrupt_ends_the_compilers_and_keeps_what_is_done(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "2")
    monkeypatch.setenv("FAKE_STOP_HOW", "hang")

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, interrupt)
    assert_ended(int((tmp_path / "build" / "child").read_text()))
    before = (tmp_path / "build" / "step1").stat().st_mtime_ns
    monkeypatch.delenv("FAKE_STOP_AT")
    build(tmp_path)
    assert (tmp_path / "build" / "step1").stat().st_mtime_ns == before


def assert_ended(pid: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} lives on")
