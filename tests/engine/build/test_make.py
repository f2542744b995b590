"""A whole build, from a source to an engine in its place, with tools that only pretend."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from moestro.engine.build import make
from moestro.engine.build.make import Prepared, Stage, build_engine, prepare
from moestro.engine.build.places import work_folder
from moestro.engine.build.record import built_engines, read_records
from moestro.engine.build.source import tree_hash
from moestro.engine.registry import Family
from moestro.errors import DownloadError, EngineError, EngineStartFailed, UsageError
from moestro.hardware import Gpu
from moestro.units import GIB
from tests.engine.build.workshop import FakeTools, write_distribution, write_program, write_source

BOTH: list[Family] = ["llama.cpp", "ik_llama.cpp"]


def prepared(family: Family = "llama.cpp") -> Prepared:
    return prepare(family, cuda=None, jobs=None, gpus=(), cores=2, free_bytes=8 * GIB)


@pytest.mark.parametrize("family", BOTH)
def test_from_a_distribution_to_an_engine(tools: FakeTools, tmp_path: Path, family: Family) -> None:
    given = write_distribution(tmp_path / "sdist", family)
    before = tree_hash(given)
    stages: list[Stage] = []
    record = build_engine(prepared(family), given, lambda stage, *_: stages.append(stage))
    assert record.id == ("llama.cpp-b11549" if family == "llama.cpp" else "ik_llama.cpp-0.1.5")
    assert record.instruction_sets == ("AVX", "AVX2")
    assert record.architectures == {"llama", "qwen3moe"}
    assert "-DCMAKE_BUILD_TYPE=Release" in record.flags
    assert record.compiler == "pretend-c++ 14.2"
    assert record.source == str(given)
    assert list(dict.fromkeys(stages)) == ["source", "configure", "compile", "try"]
    (kept,), findings = read_records()
    assert (kept.id, kept.source_hash, findings) == (record.id, record.source_hash, ())
    assert os.access(record.program, os.X_OK)
    assert (record.program.parent / "build.log").exists()
    assert not work_folder(record.id).exists()
    assert tree_hash(given) == before  # ik_llama.cpp writes into its source; into a copy, that is


def test_from_an_archive(tools: FakeTools, tmp_path: Path) -> None:
    write_distribution(tmp_path / "xllamacpp-2026.10.11549")
    archive = tmp_path / "xllamacpp.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "xllamacpp-2026.10.11549", "xllamacpp-2026.10.11549")
    record = build_engine(prepared(), archive)
    assert (record.version, record.source) == ("b11549", str(archive))
    assert [path.name for path in (tmp_path / "data/engines/.work").iterdir()] == []


def test_the_pinned_source_is_brought(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pretend(pinned: object, target: Path, say: object) -> str:
        calls.append(target)
        write_source(target)
        return "c" * 40

    monkeypatch.setattr(make, "fetch", pretend)
    monkeypatch.setenv("FAKE_STOP_AT", "2")
    monkeypatch.setenv("FAKE_STOP_HOW", "fail")
    with pytest.raises(EngineError):
        build_engine(prepared(), None)
    monkeypatch.delenv("FAKE_STOP_AT")
    record = build_engine(prepared(), None)
    assert len(calls) == 1  # the second attempt goes on with what is there
    assert (record.commit, record.version) == ("c" * 40, "b11549")
    assert record.source == "https://github.com/ggml-org/llama.cpp"


def stopped(tools: FakeTools, given: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of a build that failed at its third step."""
    monkeypatch.setenv("FAKE_STOP_AT", "3")
    monkeypatch.setenv("FAKE_STOP_HOW", "fail")
    with pytest.raises(EngineError):
        build_engine(prepared(), given)
    monkeypatch.delenv("FAKE_STOP_AT")
    return work_folder("llama.cpp-b11549")


def test_the_next_build_goes_on(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write_distribution(tmp_path / "sdist")
    work = stopped(tools, given, monkeypatch)
    assert (work / "build" / "step2").exists()
    (work / "build" / "step2").unlink()  # it would be made again, `step1` not
    write_program(tools.folder / "ninja", (tools.folder / "ninja").read_text().replace(
        ': > "step$step"', '[ "$step" != 1 ] || exit 9; : > "step$step"'
    ))  # fmt: skip
    assert build_engine(prepared(), given).id == "llama.cpp-b11549"


def test_a_changed_source_or_tool_begins_anew(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write_distribution(tmp_path / "sdist")
    work = stopped(tools, given, monkeypatch)
    (work / "build" / "old").write_text("")
    changed = given / "thirdparty/llama.cpp/ggml/src/ggml.c"
    changed.write_text("int changed;\n")
    stopped(tools, given, monkeypatch)
    assert not (work / "build" / "old").exists()
    assert (work / "source/ggml/src/ggml.c").read_text() == "int changed;\n"
    (work / "build" / "old").write_text("")
    compiler = (tools.folder / "c++").read_text().replace("14.2", "15.1")
    write_program(tools.folder / "c++", compiler)
    stopped(tools, given, monkeypatch)
    assert not (work / "build" / "old").exists()


def test_a_damaged_stamp_begins_anew(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write_distribution(tmp_path / "sdist")
    work = stopped(tools, given, monkeypatch)
    (work / "stamp.json").write_text('{"key": 5}')
    assert build_engine(prepared(), given).id == "llama.cpp-b11549"


def test_an_engine_that_crashes_is_not_installed(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVER_HOW", "crash-answering")
    with pytest.raises(EngineStartFailed, match="not installed"):
        build_engine(prepared(), write_distribution(tmp_path / "sdist"))
    assert built_engines() == ()


def test_a_compiler_that_makes_nothing(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NO_PROGRAM", "1")
    with pytest.raises(EngineError, match="made no llama-server"):
        build_engine(prepared(), write_distribution(tmp_path / "sdist"))


def test_the_other_engines_source_is_refused(tools: FakeTools, tmp_path: Path) -> None:
    given = write_distribution(tmp_path / "sdist", "ik_llama.cpp")
    with pytest.raises(UsageError, match=r"holds ik_llama\.cpp, not llama\.cpp"):
        build_engine(prepared(), given)
    with pytest.raises(UsageError, match="does not exist"):
        build_engine(prepared(), tmp_path / "nothing")


def test_room_is_looked_for_before_anything_is_written(
    tools: FakeTools, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "_DISK_BYTES", 1 << 60)
    with pytest.raises(EngineError, match="takes about 1048576 TiB of disk") as caught:
        prepared()
    assert caught.value.code == "build-needs-room"
    assert not data.exists()


def test_cuda_where_nvcc_and_a_gpu_are(tools: FakeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    def cuda(wish: bool | None, *gpus: Gpu) -> bool:
        return prepare(
            "llama.cpp", cuda=wish, jobs=1, gpus=gpus, cores=2, free_bytes=8 * GIB
        ).cuda  # fmt: skip

    ada = Gpu("nvidia", "RTX 4090", capability=(8, 9))
    amd = Gpu("amd", "RX 7900")
    monkeypatch.setattr(make, "find_nvcc", lambda: None)
    assert not cuda(None, ada)
    write_program(tools.folder / "nvcc", "#!/bin/sh\n")
    monkeypatch.setattr(make, "find_nvcc", lambda: tools.folder / "nvcc")
    assert cuda(None, ada)
    assert not cuda(None, amd)
    assert not cuda(False, ada)
    assert cuda(True)


def test_a_folder_that_cannot_be_written_to(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="cannot be written to"):
        build_engine(prepared(), write_distribution(tmp_path / "sdist"))


def test_without_a_network_the_hint_names_another_way(
    tools: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise DownloadError("No network.", hint="--source")

    monkeypatch.setattr(make, "fetch", none)
    with pytest.raises(DownloadError):
        build_engine(prepared(), None)
    assert not (work_folder("llama.cpp-b11549") / "source").exists()
