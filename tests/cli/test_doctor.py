"""`moestro doctor`, as a person and as a program call it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from moestro.cli.launch import prepare
from moestro.cli.main import main
from moestro.cli.soaking import soaked
from moestro.demo import model_path
from moestro.doctor.case import Case
from moestro.doctor.check import Check
from moestro.doctor.examine import Answer, examine
from moestro.doctor.soak import SoakReport
from moestro.errors import MoestroError
from moestro.planning import Wishes
from tests.rewriting import Gguf
from tests.shapes import PUBLISHED, write_header


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("MOESTRO_DATA", str(folder))
    return folder


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["doctor", *arguments, "--port", "0", "--json"])
    found = json.loads(capsys.readouterr().out)
    return status, found


def codes(found: dict[str, Any], *severities: str) -> set[str]:
    return {
        finding["code"]
        for finding in found["findings"]
        if not severities or finding["severity"] in severities
    }


@pytest.fixture(scope="module")
def demo_report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the whole command in a process of its own, as a user has it."""
    done = subprocess.run(
        [sys.executable, "-m", "moestro", "doctor", "demo", "--port", "0", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "MOESTRO_DATA": str(tmp_path_factory.mktemp("data"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_demo_model_is_fit_to_serve(demo_report: dict[str, Any]) -> None:
    assert codes(demo_report, "fail") == set()
    for code in ("plan-fits", "complete", "template-safe", "template-right", "tokenizer",
                 "router-precision", "re-prefill"):  # fmt: skip
        assert code in codes(demo_report, "ok"), code
    by_severity = demo_report["summary"]
    assert set(by_severity) == {"fail", "warn", "unknown", "info", "ok"}
    for severity, count in by_severity.items():
        found = [f for f in demo_report["findings"] if f["severity"] == severity]
        assert len(found) == count


def test_every_finding_says_where_it_comes_from(demo_report: dict[str, Any]) -> None:
    for finding in demo_report["findings"]:
        assert finding["area"] in ("memory", "machine", "model", "service", "agents")
        assert finding["check"]
        if finding["severity"] in ("warn", "fail", "unknown"):
            assert finding["fix"], finding


def test_without_a_model_the_machine_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = doctor(capsys)
    assert "model" not in {finding["area"] for finding in found["findings"]}
    assert "memory" in {finding["area"] for finding in found["findings"]}


def test_a_page_for_a_terminal_of_80_columns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moestro", "doctor", "demo", "--port", "0"],
        capture_output=True, text=True, timeout=120, check=False,
        env={"COLUMNS": "80", "PATH": "", "MOESTRO_DATA": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    for word in ("moestro-demo", "ok:", "checks in"):
        assert word in done.stdout


def test_a_block_for_a_bug_report_names_no_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "zacharias"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    model = home / "secret-project.gguf"
    model.write_bytes(model_path().read_bytes())
    main(["doctor", str(model), "--port", "0", "--report"])
    block = capsys.readouterr().out
    assert block.startswith("### moestro doctor")
    assert block.count("```") == 2
    assert "zacharias" not in block
    assert "settings: context=" in block


def test_a_truncated_file_fails_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "short.gguf"
    model.write_bytes(model_path().read_bytes()[:-100_000])
    status, found = doctor(capsys, str(model))
    assert status == 1
    assert "model-truncated" in codes(found, "fail")


def test_a_folder_without_a_config_is_unknown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    _, found = doctor(capsys, str(folder))
    unknown = [f for f in found["findings"] if f["severity"] == "unknown" and f["area"] == "model"]
    assert unknown
    assert "config" in " ".join(f"{f['evidence']} {f['fix']}" for f in unknown)


def test_a_model_that_is_not_there_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status = main(["doctor", str(tmp_path / "none.gguf"), "--json"])
    assert status == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "model-not-found"


def test_a_taken_port_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status = main(["doctor", "--port", str(other.getsockname()[1]), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == 1
    assert "port-taken" in codes(found, "fail")


def test_a_plan_file_is_examined_as_it_stands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["plan", "demo", "--context", "2048", "--context-checkpoints", "0", "--json"])
    plan = tmp_path / "plan.json"
    plan.write_text(capsys.readouterr().out, encoding="utf-8")
    status, found = doctor(capsys, "--plan", str(plan))
    assert status == 0
    assert "plan-matches" in codes(found, "ok")
    assert "re-prefill-after-changes" in codes(found, "warn")


def test_a_plan_has_its_settings_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--plan", "plan.json", "--context", "4096"]) == 2
    assert "Leave out --plan" in capsys.readouterr().err


def test_what_is_not_a_plan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--plan", str(model_path())]) == 1
    assert "to be a plan" in capsys.readouterr().err


def test_a_soak_that_shows_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "demo", "--soak", "1s"]) == 2
    assert "At least" in capsys.readouterr().err


def test_a_header_of_hundreds_of_gib_is_looked_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = write_header(PUBLISHED["DeepSeek-V3"](), tmp_path / "DeepSeek-V3-Q4_K_M.gguf")
    status, found = doctor(capsys, str(model))
    assert status == 1
    assert "memory-short" in codes(found, "fail")
    assert "model-has-holes" in codes(found, "fail")


def test_ctrl_c_ends_it_whatever_it_is_doing(tmp_path: Path) -> None:
    """Here it computes the hash of 64 GiB of holes, which takes minutes."""
    model = write_header(PUBLISHED["Qwen3-30B-A3B"](), tmp_path / "large.gguf")
    os.truncate(model, 64 << 30)
    (tmp_path / "large.gguf.sha256").write_text(f"{'0' * 64}  large.gguf\n", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "moestro", "doctor", str(model), "--full", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MOESTRO_DATA": str(tmp_path)},
    )  # fmt: skip
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07\x1b[31mred.gguf", "left\u202eright.gguf"])
def test_a_file_s_name_steers_no_terminal(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / name
    model.write_bytes(model_path().read_bytes())
    main(["doctor", str(model), "--port", "0"])
    main(["doctor", str(model), "--port", "0", "--report"])
    main(["doctor", f"{model}.none"])
    said = capsys.readouterr()
    for character in "\x1b\x07\u202e":
        assert character not in said.out + said.err


def test_a_block_for_a_bug_report_cannot_be_ended_from_within(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "x\n```\n# heading\n```.gguf"
    model.write_bytes(model_path().read_bytes())
    main(["doctor", str(model), "--port", "0", "--report"])
    block = capsys.readouterr().out
    assert block.count("```") == 2
    assert "\n# heading" not in block


def test_load_is_put_on_the_model_and_watched() -> None:
    prepared = prepare("demo", Wishes(parallel=2, context=1024))
    told: list[float] = []
    report = soaked(prepared, 2.0, told.append)
    assert report.trouble is None
    assert report.parallel == 2
    assert len(report.samples) == len(told) >= 1
    assert all(sample.tokens_per_second > 0 for sample in report.samples)
    if sys.platform == "linux":
        assert all((sample.rss_bytes or 0) > 1 << 20 for sample in report.samples)


def test_an_engine_that_dies_under_load_is_told_although_no_stream_noticed() -> None:
    prepared = prepare("demo", Wishes(parallel=2, context=1024))
    killed: list[int] = []

    def kill(_seconds: float) -> None:
        for child in psutil.Process().children(recursive=True):
            if not killed and child.status() != psutil.STATUS_ZOMBIE:
                killed.append(child.pid)
                child.kill()

    report = soaked(prepared, 30.0, kill)
    assert killed
    assert report.seconds < 20.0, "there is nothing more to see"
    assert report.trouble is not None
    assert "SIGKILL" in report.trouble


def test_the_machine_is_looked_at_before_it_is_put_under_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Afterwards it would be called busy and warm, by the doctor's own doing."""
    events: list[str] = []

    def load(*_: object) -> SoakReport:
        events.append("load")
        return SoakReport(60.0, 4, (), "It was killed.")

    def asked(case: Case, checks: Sequence[Check], *rest: Any) -> tuple[Answer, ...]:
        events.extend(check.name for check in checks)
        return examine(case, checks, *rest)

    monkeypatch.setattr("moestro.cli.soaking.soaked", load)
    monkeypatch.setattr("moestro.cli.examining.examine", asked)
    status, found = doctor(capsys, "demo", "--soak", "60s")
    assert status == 1
    assert "soak-failed" in codes(found, "fail")
    assert events[-2:] == ["load", "soak"]
    assert "host-load" in events[:-2]


def test_up_refuses_what_a_quick_check_fails(tmp_path: Path) -> None:
    """Routers in four bits are seen in the header, so nothing is loaded for it."""
    model = tmp_path / "four-bits.gguf"
    file = Gguf.open(model_path())
    for name in [name for name in file.tensors if "ffn_gate_inp.weight" in name]:
        file.store(name, file.values(name), "Q4_0")
    file.write(model)
    with pytest.raises(MoestroError) as error:
        prepare(str(model), Wishes())
    assert error.value.code == "router-quantized"
    assert "--anyway" in str(error.value.hint)
    assert prepare(str(model), Wishes(), anyway=True).plan.fits
