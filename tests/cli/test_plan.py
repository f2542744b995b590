"""`moestro plan`, as a person and as a program call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moestro.cli.main import main
from tests.machines import WEAK_HOST
from tests.model.servers import serving
from tests.shapes import PUBLISHED, Shape, write_header

CARD = "rtx-4090"


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return header("Qwen3-30B-A3B", tmp_path_factory.mktemp("models") / "Qwen3-30B-A3B-Q4_K_M.gguf")


def header(name: str, path: Path, shape: Shape | None = None) -> Path:
    return write_header(shape or PUBLISHED[name](), path)


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["plan", *arguments, "--json"])
    out = capsys.readouterr().out
    return status, json.loads(out)


def test_the_plan_of_another_machine(moe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = plan(capsys, str(moe), "--hardware", CARD, "--context", "8192")
    assert status == 0
    assert found["fits"] is True
    assert found["settings"]["gpu_layers"] == 49
    gpu = next(device for device in found["memory"] if device["device"] == "GPU0")
    # The engine's dry run has the last word, for a card that is not here too.
    notes = {line["note"] for line in gpu["lines"] if line["part"] in ("weights", "compute")}
    assert notes == {"the engine's dry run"}
    assert gpu["total_bytes"] <= gpu["capacity_bytes"]
    assert found["workload"]["context"] == 8192
    assert found["speed"]["decode_tokens_per_second"]["low"] > 0


def test_a_page_for_a_terminal_of_80_columns(moe: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moestro", "plan", str(moe), "--hardware", CARD],
        capture_output=True, text=True, timeout=120, check=False,
        env={"COLUMNS": "80", "PATH": "", "MOESTRO_DATA": str(moe.parent / "data")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    for word in ("fits", "decode", "prefill", "GPU0", "because", "what else would work"):
        assert word in done.stdout


def test_what_does_not_fit_exits_with_1_and_says_what_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    giant = header("DeepSeek-V3", tmp_path / "DeepSeek-V3-Q4_K_M.gguf")
    status, found = plan(capsys, str(giant), "--hardware", CARD)
    assert status == 1
    assert found["fits"] is False
    # The ledger is there all the same.
    assert sum(device["weights_bytes"] for device in found["memory"]) > 300 << 30
    short = next(finding for finding in found["findings"] if finding["code"] == "memory-short")
    assert "more of free host memory" in short["fix"]
    assert main(["plan", str(giant), "--hardware", CARD]) == 1


def test_comparisons(moe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = header("Mixtral-8x7B", tmp_path / "Mixtral.gguf")
    status = main(["plan", str(moe), "--compare", str(other), "--hardware", CARD])
    out = capsys.readouterr().out
    assert status == 0
    assert "Mixtral" in out
    assert "Qwen3-30B-A3B" in out
    _, found = plan(capsys, str(moe), "--hardware", CARD, "--hardware", "rtx-3060")
    totals = [entry["settings"]["cpu_expert_layers"] for entry in found["plans"]]
    assert totals[0] < totals[1]


def test_a_comparison_names_what_fails_and_where(
    moe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sound plan among several is worth a 0; what fails in the others is said once each."""
    giant = header("DeepSeek-V3", tmp_path / "Giant.gguf")
    several = ["plan", str(moe), "--compare", str(giant), "--hardware", CARD]
    assert main(several) == 0
    _, below = capsys.readouterr().out.split("one stream")
    assert below.count("fail: ") == 1
    assert "Giant.gguf: CPU needs" in below
    assert moe.name not in below
    wrong = ["--cache-type", "q8_0", "--flash-attention", "off", "--parallel", "300"]
    assert main([*several, *wrong]) == 1
    _, below = capsys.readouterr().out.split("one stream")
    said = " ".join(below.split())
    assert said.count("A quantized cache needs flash attention") == 1
    assert said.count("The engine takes at most 256 streams") == 1
    assert f"{moe.name}, Giant.gguf: --parallel 300" in said
    status, _ = plan(capsys, *several[1:], *wrong)
    assert status == 1


def test_what_an_alternative_takes_from_the_expert_cache_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = header("Mixtral-8x7B", tmp_path / "Mixtral.gguf")
    machine = tmp_path / "weak.toml"
    machine.write_text(WEAK_HOST)
    _, found = plan(capsys, str(model), "--hardware", str(machine))
    assert found["settings"]["expert_cache_bytes"] > 0
    assert main(["plan", str(model), "--hardware", str(machine)]) == 0
    _, below = capsys.readouterr().out.split("what else would work")
    assert "expert cache " in below


def test_a_machine_whose_speed_is_unknown_says_what_is_missing(
    moe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = tmp_path / "plain.toml"
    described = (
        '[memory]\nsize = "64 GiB"\nbandwidth = "80 GB/s"\n'
        '[[gpus]]\nname = "Some Card"\nvendor = "amd"\nmemory = "24 GiB"\n'
    )
    arguments = ["plan", str(moe), "--hardware", str(machine), "--cpu-expert-layers", "9"]
    machine.write_text(described)
    assert main(arguments) == 0
    assert "the bandwidth of Some Card is not known" in capsys.readouterr().out
    machine.write_text(described + 'bandwidth = "1 TB/s"\n')
    assert main(arguments) == 0
    assert "the link between host and GPU is not known" in capsys.readouterr().out


def test_the_chart_of_a_mac_draws_no_more_memory_than_its_budget(
    moe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "chart.html"
    arguments = ["plan", str(moe), "--hardware", "m4-max", "--budget", "30GiB"]
    assert main([*arguments, "--chart", str(page)]) == 0
    capsys.readouterr()
    assert "all memory 30.0 GiB" in page.read_text(encoding="utf-8")


def test_the_chart_opens_without_a_network(
    moe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "chart.html"
    assert main(["plan", str(moe), "--hardware", CARD, "--chart", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "Qwen3-30B-A3B-Q4_K_M" in text
    assert "Q8_0" in text
    assert "<script src" not in text
    capsys.readouterr()
    nowhere = tmp_path / "no" / "such" / "folder.html"
    assert main(["plan", str(moe), "--hardware", CARD, "--chart", str(nowhere)]) == 1
    assert "could not be written" in capsys.readouterr().err


def test_the_file_that_fits_is_taken_from_a_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three sizes of a 30 B model the largest that fits a 24 GB card whole."""
    from moestro.model import read_model
    from moestro.model.what_if import retyped

    folder = tmp_path / "hub" / "owner" / "repo-GGUF"
    folder.mkdir(parents=True)
    base = header("Qwen3-30B-A3B", folder / "model-Q4_K_M.gguf")
    spec = read_model(base)
    for label, kind in (("Q8_0", "Q8_0"), ("Q2_K", "Q2_K")):
        sized = folder / f"model-{label}.gguf"
        sized.write_bytes(b"")
        with sized.open("r+b") as file:
            file.truncate(retyped(spec, kind).tensor_bytes)
    with serving(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        status, found = plan(capsys, "hf:owner/repo-GGUF", "--hardware", CARD)
    assert status == 0
    location = found["model"]["files"][0]["location"]
    assert location.endswith("model-Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--hardware", "rtx-4091"], "rtx-4090"),
        (["demo", "demo"], "--compare"),
        (["demo", "--budget", "20G"], "20GiB"),
        (["demo", "--context", "0"], "--context"),
        (["no-such-file.gguf"], "no-such-file.gguf"),
        (["demo", "--compare", "demo2.gguf", "--chart", "x.html"], "--chart"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
