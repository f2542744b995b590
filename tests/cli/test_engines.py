"""`moestro engines`, with tools that only pretend to compile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moestro.cli.main import main
from moestro.engine.build.record import built_engines
from tests.engine.build.test_compile import assert_ended
from tests.engine.build.workshop import FakeTools, fake_tools, write_distribution


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    made = fake_tools(tmp_path / "tools")
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.setenv("FAKE_SERVER", str(made.server))
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return write_distribution(tmp_path / "sdist")


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    assert main(["engines", *words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_build_list_remove(
    tools: FakeTools, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = said(capsys, "build", "llama.cpp", "--no-cuda", "--source", str(given))
    assert (record["id"], record["instruction_sets"]) == ("llama.cpp-b11549", ["AVX", "AVX2"])
    assert Path(record["program"]).is_file()

    listed = said(capsys, "list", "--for", "demo")
    by_id = {row["id"]: row for row in listed["engines"]}
    assert set(by_id) == {"embedded", "llama.cpp-b11549"}
    built = by_id["llama.cpp-b11549"]
    assert (built["origin"], built["runs"]) == ("built", False)  # the small source knows two
    assert built["architectures"] == ["llama", "qwen3moe"]
    assert by_id["embedded"]["runs"] is True
    assert "AVX2" in by_id["embedded"]["instruction_sets"]
    assert listed["findings"] == []

    assert main(["engines", "remove", "llama.cpp-b11549"]) == 0
    assert "is deleted" in capsys.readouterr().out
    assert built_engines() == ()
    assert main(["engines", "remove", "llama.cpp-b11549"]) == 1
    assert "There is no engine" in capsys.readouterr().err


def test_people_read_what_it_will_take_and_what_there_is(
    tools: FakeTools, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "llama.cpp", "--no-cuda", "--jobs", "1", "--source", str(given)]
    assert main(["engines", *words]) == 0
    out, err = capsys.readouterr()
    assert "1 compiler at once: about 35 minutes" in err
    assert "compiling" in err
    assert "llama.cpp-b11549" in out
    (tmp_path / "data/engines/llama.cpp-broken").mkdir()
    assert main(["engines", "list"]) == 0
    out = capsys.readouterr().out
    assert "compiled for   AVX, AVX2" in out
    assert "2 known" in out
    assert "has no engine.json" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["build", "vllm"], 2, "vllm"),
        (["build", "llama.cpp", "--jobs", "0"], 2, "--jobs"),
        (["build", "llama.cpp", "--source", "/nowhere"], 2, "/nowhere does not exist"),
        (["remove", "embedded"], 2, "not the name of an engine that was built here"),
        (["remove", "../../etc"], 2, "not the name of an engine that was built here"),
        (["list", "--for", "/nowhere.gguf"], 1, "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(
    tools: FakeTools, capsys: pytest.CaptureFixture[str],
    words: list[str], status: int, sentence: str,
) -> None:  # fmt: skip
    assert main(["engines", *words]) == status
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


def test_a_missing_tool_is_said_before_anything_else(
    tools: FakeTools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tools.folder / "cmake").unlink()
    monkeypatch.setattr(sys, "executable", str(tools.folder / "python"))
    failure = said(capsys, "build", "llama.cpp", "--no-cuda", status=1)
    assert failure["error"]["code"] == "build-tools-missing"
    assert "pip install cmake" in failure["error"]["hint"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_ends_its_compilers_and_goes_on_later(
    tools: FakeTools, given: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "moestro", "engines", "build", "llama.cpp", "--no-cuda",
               "--source", str(given)]  # fmt: skip
    hanging = {**os.environ, "FAKE_STOP_AT": "3", "FAKE_STOP_HOW": "hang"}
    build = tmp_path / "data/engines/.work/llama.cpp-b11549/build"
    with subprocess.Popen(command, env=hanging, stderr=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 60
            while not (build / "child").exists() or not (build / "child").read_text():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "The same command goes on from here" in err
    assert "Traceback" not in err
    assert_ended(int((build / "child").read_text()))
    assert (build / "step2").exists()
