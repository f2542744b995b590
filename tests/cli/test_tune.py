"""`moestro tune`, from the command line to settings that later verbs use."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from moestro import demo
from moestro.cli.main import main
from moestro.engine import EngineRequest
from moestro.tune.frontier_run import NO_TIME
from tests.gateway.stub_engine import StubEngine

ONLY_ATTENTION = [
    "--engine", "embedded", "--threads", "1", "--threads-batch", "1", "--ubatch", "512",
    "--batch", "512", "--parallel", "2", "--mtp", "0", "--ngram", "off", "--load-mode", "mmap",
    "--cache-type", "f16", "--context", "2048", "--no-repack",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[StubEngine]:
    """Engines of which those without flash attention are many times as fast, on a machine where
    nobody else takes part of the processors."""
    made: list[StubEngine] = []

    def make(request: EngineRequest) -> StubEngine:
        engine = StubEngine()
        quick = request.settings.flash_attention == "off"
        engine.script = {"tokens": 6, "pause": 0.001 if quick else 0.03}
        made.append(engine)
        return engine

    monkeypatch.setattr("moestro.cli.tuning.make_engine", make)
    monkeypatch.setattr("moestro.tune.engine_arena.taken", lambda *_: 0.0)
    return made


def tuned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["tune", "demo", "--json", "--budget", "60s", *ONLY_ATTENTION, *arguments]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def test_what_wins_is_kept_and_used(
    stubs: list[StubEngine], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = tuned(capsys, "--output", str(tmp_path / "plan.json"))
    assert found["settings"]["flash_attention"] == "off"
    assert found["gain"]["low"] > 1.5
    assert {reason["setting"] for reason in found["reasons"]} >= {"flash_attention"}
    assert all(engine.state == "stopped" for engine in stubs)

    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["settings"]["flash_attention"] == "off"
    assert main(["export", str(tmp_path / "plan.json"), "--to", "llama-server"]) == 0
    assert "--flash-attn off" in " ".join(capsys.readouterr().out.split())

    assert main(["plan", "demo", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["flash_attention"] == "off"
    (reason,) = [one for one in plan["reasons"] if one["setting"] == "flash_attention"]
    assert reason["source"] == "measured"
    assert "tuned" in [finding["code"] for finding in plan["findings"]]

    assert main(["plan", "demo", "--json", "--untuned"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["flash_attention"] == "auto"
    assert main(["plan", "demo", "--json", "--flash-attention", "on"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["flash_attention"] == "on"


def test_what_is_fixed_stays(stubs: list[StubEngine], capsys: pytest.CaptureFixture[str]) -> None:
    found = tuned(capsys, "--flash-attention", "on", "--budget", "6s")
    assert found["settings"]["flash_attention"] == "on"
    assert found["settings"]["repack"] is False
    assert found["gain"]["expected"] < 1.5, "what would be many times as fast was not measured"


def test_for_people_it_fits_80_columns(
    stubs: list[StubEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "demo", "--budget", "20s", "--frontier", *ONLY_ATTENTION]) == 0
    out = capsys.readouterr().out
    assert "× the requests of chat" in out
    assert "Choose among the rows with *" in out or NO_TIME in out
    assert "auto → off" in out
    assert max(map(len, out.splitlines())) <= 80


def test_limits_that_nothing_keeps_are_said(
    stubs: list[StubEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    found = tuned(capsys, "--slo-itl", "0.1ms", "--flash-attention", "off")
    (finding,) = found["findings"]
    assert finding["code"] == "slo-missed"
    assert "time per token" in finding["evidence"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "0s"], "--budget must be greater than zero"),
        (["--budget", "soon"], "soon"),
        (["--scenario", "long-prompt", "--context", "512"], "a stream reaches 512"),
        (["--scenario", "chat", "--random", "10,10"], "exclude each other"),
        (["--engine", "nowhere"], "nowhere"),
    ],
)
def test_contradictions_are_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "demo", *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_a_start_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "moestro.cli.tuning.make_engine", lambda _: StubEngine(fails="The engine refuses.")
    )
    assert main(["tune", "demo", "--budget", "30s"]) == 1
    assert "The starting settings do not run: The engine refuses." in capsys.readouterr().err


def test_a_budget_for_not_one_comparison_says_what_it_needs(
    stubs: list[StubEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "demo", "--budget", "10ms", *ONLY_ATTENTION]) == 1
    err = capsys.readouterr().err
    assert "too short for one comparison" in err
    assert "Give it" in err


def test_ctrl_c_in_the_frontier_keeps_what_the_search_found(
    stubs: list[StubEngine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    monkeypatch.setattr("moestro.cli.tuning.measure_frontier", interrupted)
    options = ["--json", "--budget", "10s", "--frontier", "--flash-attention", "on"]
    assert main(["tune", "demo", *options, *ONLY_ATTENTION]) == 130
    data = json.loads(capsys.readouterr().out)
    assert data["stopped_by_user"] is True
    assert data["frontier"] is None
    assert data["stopped"] in (None, "the budget is spent")
    assert data["gain"]["expected"] == 1.0
    assert all(engine.state == "stopped" for engine in stubs)


def test_ctrl_c_keeps_what_was_learned() -> None:
    command = [sys.executable, "-m", "moestro", "tune", str(demo.model_path()), "--json"]
    lines = []

    def follow(errors: IO[str]) -> None:
        for line in errors:
            lines.append(line)
            if "against" in line:
                process.send_signal(signal.SIGINT)
                break
        lines.extend(errors)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stdout is not None
        reader = threading.Thread(target=follow, args=(process.stderr,))
        reader.start()
        out = process.stdout.read()
        reader.join(timeout=60)
    assert process.returncode == 130, "".join(lines)
    data = json.loads(out)
    assert data["stopped_by_user"] is True
    assert data["complete"] is False
    assert any(trial["outcome"] == "start" for trial in data["trials"])
    assert "Traceback" not in "".join(lines)
