"""A compiled program is tried before it is installed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from moestro.engine.build.smoke import instruction_sets_in, try_engine
from moestro.engine.build.smoke_model import write_smoke_model
from moestro.errors import EngineStartFailed
from moestro.model import LocalFile, read_model
from tests.engine.build.test_compile import assert_ended
from tests.engine.build.workshop import FakeTools

PYTHON = sys.executable  # before the fixtures put another one there


def test_a_sound_engine_says_what_it_was_compiled_for(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert try_engine(tools.server, "llama.cpp") == ("AVX", "AVX2")
    assert not list(here.iterdir())  # what it wrote beside itself is gone


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels tell no child")
def test_it_does_not_outlive_who_tries_it(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "pid"
    monkeypatch.setenv("FAKE_SERVER_HOW", "hangs")
    monkeypatch.setenv("FAKE_SERVER_PID", str(told))
    code = "import sys; from pathlib import Path; from moestro.engine.build.smoke import *\n"
    code += "try_engine(Path(sys.argv[1]), 'llama.cpp')"
    with subprocess.Popen([PYTHON, "-c", code, str(tools.server)]) as trying:
        while not (told.exists() and told.read_text().endswith("\n")):
            time.sleep(0.02)
        trying.kill()
    assert_ended(int(told.read_text()))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no-version", "ended with status 1 when asked for its version"),
        ("crash-loading", r"crashed \(SIGSEGV\) while it loaded a model"),
        ("illegal", "instruction that this processor does not have while it loaded a model"),
        ("crash-answering", r"crashed \(SIGABRT\) while it answered"),
        ("refuses", "answered 500 to a prompt"),
    ],
)
def test_an_unsound_one_is_not_installed(
    tools: FakeTools, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.setenv("FAKE_SERVER_HOW", how)
    with pytest.raises(EngineStartFailed, match=f"{said}; it is not installed") as caught:
        try_engine(tools.server, "llama.cpp")
    assert caught.value.code == "engine-not-sound"


def test_a_program_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(EngineStartFailed, match="cannot be started"):
        try_engine(tmp_path / "none", "llama.cpp")


def test_both_ways_to_say_it() -> None:
    llama = "common: system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CUDA : ARCHS = 890 | " \
        "CPU : AVX = 1 | AVX_VNNI = 0 | AVX512 = 1 | \n"  # fmt: skip
    ik = 'INFO [main] system info | n_threads=2 system_info="AVX = 1 | AVX_VNNI = 1 | FMA = 0 | "\n'
    assert instruction_sets_in(llama) == ("AVX", "AVX-512")
    assert instruction_sets_in(ik) == ("AVX", "AVX-VNNI")
    assert instruction_sets_in("loading") == ()


def test_the_model_is_a_sound_file_of_experts(tmp_path: Path) -> None:
    path = write_smoke_model(tmp_path / "model.gguf")
    spec = read_model(LocalFile(path))
    assert [finding.code for finding in spec.findings if finding.severity in ("fail", "warn")] == []
    assert spec.experts is not None
    assert (spec.experts.count, spec.experts.used) == (4, 2)
    assert {"Q8_0", "Q4_0", "Q4_K", "Q6_K"} <= spec.bytes_by_type.keys()
    assert path.read_bytes() == write_smoke_model(tmp_path / "again.gguf").read_bytes()
