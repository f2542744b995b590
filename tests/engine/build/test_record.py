"""What is kept of an engine, what becomes of a damaged record, and what may be deleted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moestro.engine.build.places import claimed, engine_id, work_folder
from moestro.engine.build.record import (
    BuildRecord,
    built_engines,
    install,
    processes_of,
    read_records,
    remove,
)
from moestro.errors import EngineError, UsageError
from tests.engine.build.workshop import write_program

RECORD = BuildRecord(
    id="llama.cpp-b11549",
    family="llama.cpp",
    version="b11549",
    commit=None,
    source="/a/source",
    source_hash="0" * 64,
    flags=("-DGGML_AVX2=ON",),
    compiler="c++ 14.2",
    instruction_sets=("AVX", "AVX2"),
    features=frozenset({"mtp", "repack"}),
    architectures=frozenset({"llama", "qwen3moe"}),
    devices=(),
    built_at=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
    seconds=900.5,
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write_program(tmp_path / "compiled", "#!/bin/sh\n")


def test_what_is_installed_is_read_back(program: Path, data: Path) -> None:
    path = install(RECORD, program)
    assert path == data / "engines" / RECORD.id / "llama-server"
    assert read_records() == ((RECORD,), ())
    (info,) = built_engines()
    assert (info.id, info.origin, info.program) == (RECORD.id, "built", path)
    assert info.runs("qwen3moe")
    assert os.access(path, os.X_OK)


def test_a_second_build_replaces_the_first_and_leaves_nothing(program: Path, data: Path) -> None:
    install(RECORD, program)
    newer = replace(RECORD, seconds=10.0)
    install(newer, program)
    assert read_records()[0] == (newer,)
    assert [path.name for path in (data / "engines").iterdir()] == [RECORD.id]


def test_no_engine_at_all() -> None:
    assert built_engines() == ()


DAMAGES: list[Any] = [
    b"",
    b"{",
    b"null",
    b"[" * 100_000,
    b"x" * (2 << 20),
    {"form": 2},
    {"family": "vllm"},
    {"id": "llama.cpp-b1"},
    {"flags": "all"},
    {"flags": [1]},
    {"architectures": None},
    {"version": "b1\x1b[2J"},
    {"seconds": "NaN"},
    {"seconds": 1e400},
    {"built_at": "yesterday"},
    {"commit": 5},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_record_is_a_finding_and_others_stay(program: Path, damage: Any) -> None:
    path = install(RECORD, program).parent / "engine.json"
    other = replace(RECORD, id="ik_llama.cpp-0.1.5", family="ik_llama.cpp")
    install(other, program)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.write_text(json.dumps({**RECORD.to_json(), **damage}))
    records, (finding,) = read_records()
    assert records == (other,)
    assert finding.code == "engine-unreadable"
    assert RECORD.id in (finding.evidence or "")


def test_a_record_without_its_program(program: Path) -> None:
    install(RECORD, program).unlink()
    assert [finding.code for finding in read_records()[1]] == ["engine-unreadable"]


def test_removing_takes_the_engine_and_half_a_build(program: Path, data: Path) -> None:
    install(RECORD, program)
    (work_folder(RECORD.id) / "build").mkdir(parents=True)
    remove(RECORD.id)
    assert built_engines() == ()
    assert not work_folder(RECORD.id).exists()
    with pytest.raises(EngineError, match="There is no engine"):
        remove(RECORD.id)
    (work_folder(RECORD.id) / "build").mkdir(parents=True)
    assert remove(RECORD.id) == work_folder(RECORD.id)


@pytest.mark.parametrize("name", ["..", "llama.cpp-/../..", "/etc", "", "llama.cpp-..", "vllm-1"])
def test_nothing_else_can_be_named(data: Path, name: str) -> None:
    data.mkdir()
    with pytest.raises(UsageError, match="not the name"):
        remove(name)
    assert data.exists()


def test_a_folder_that_was_not_made_here_stays(data: Path, tmp_path: Path) -> None:
    folder = data / "engines" / "llama.cpp-mine"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years")
    with pytest.raises(EngineError, match="not made by moestro"):
        remove("llama.cpp-mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "engine.json").write_text("{}")
    (data / "engines" / "llama.cpp-link").symlink_to(outside)
    with pytest.raises(EngineError, match="not made by moestro"):
        remove("llama.cpp-link")
    assert (folder / "thesis.txt").exists()
    assert (outside / "engine.json").exists()


def test_a_running_engine_stays() -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    path = install(RECORD, Path(sleep).resolve())
    # One binary for many commands goes by the name that it is called by.
    with subprocess.Popen(["sleep", "60"], executable=path) as process:
        try:
            assert processes_of(path) == [process.pid]
            with pytest.raises(EngineError, match=f"is running \\(process {process.pid}\\)"):
                remove(RECORD.id)
        finally:
            process.kill()
    remove(RECORD.id)
    assert not path.exists()


def test_one_build_at_a_time(data: Path) -> None:
    folder = work_folder(RECORD.id)
    with (
        claimed(folder),
        pytest.raises(EngineError, match="being built by another process"),
        claimed(folder),
    ):
        pytest.fail("two builds at once")
    with claimed(folder):
        pass


@pytest.mark.parametrize(
    ("version", "cuda", "expected"),
    [
        ("b11549", False, "llama.cpp-b11549"),
        ("b11549", True, "llama.cpp-b11549-cuda"),
        ("../../etc", False, "llama.cpp-etc"),
        ("weird v1 (x)", False, "llama.cpp-weird-v1-x"),
        ("…", False, "llama.cpp-unknown"),
    ],
)
def test_ids_are_plain_names(version: str, cuda: bool, expected: str) -> None:
    assert engine_id("llama.cpp", version, cuda=cuda) == expected
    assert work_folder(expected).name == expected
