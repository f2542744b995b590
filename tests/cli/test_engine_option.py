"""`--engine` and the settings that came with it, through the verbs that take them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moestro.cli import endpoint
from moestro.cli.main import main
from moestro.cli.options import engine_options, wishes_of
from moestro.demo import model_path
from moestro.engine.llama_cpp.version import installed_version
from moestro.planning.memory import READ_WEIGHTS
from tests.engine.llama_server.fake import write_server

SETTINGS = (
    "--threads-batch", "1", "--batch", "700", "--no-repack", "--load-mode", "none",
    "--ngram", "map-k",
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return write_server(tmp_path, family="ik_llama.cpp", version="4567 (abc)")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def host_lines(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["kind"]: line for line in plan["memory"][0]["lines"]}


def test_a_plan_for_the_embedded_engine_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    status, plan = said(capsys, "plan", "demo", *SETTINGS, "--mtp", "2", "--mtp-p-min", "0.3")
    assert status == 0
    assert plan["engine"] == {
        "id": "embedded", "family": "llama.cpp", "version": installed_version(),
    }  # fmt: skip
    wanted = {
        "engine": "embedded", "threads_batch": 1, "batch": 700, "repack": False,
        "load_mode": "none", "ngram": "map-k", "mtp_p_min": 0.3,
    }  # fmt: skip
    assert {name: plan["settings"][name] for name in wanted} == wanted
    lines = host_lines(plan)
    assert READ_WEIGHTS in lines
    assert "weights, repacked" not in lines
    assert "the engine's dry run" in lines[READ_WEIGHTS]["note"]
    reasons = {reason["setting"]: reason for reason in plan["reasons"]}
    assert all(reasons[name]["source"] == "user" for name in wanted if name != "engine")
    assert "engine" not in reasons


def test_another_family_is_computed(server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, plan = said(capsys, "plan", "demo", "--engine", str(server), "--parallel", "2")
    assert status == 0
    assert plan["engine"] == {
        "id": str(server), "family": "ik_llama.cpp", "version": "4567 (abc)",
    }  # fmt: skip
    assert plan["settings"]["engine"] == str(server)
    lines = host_lines(plan)
    assert lines[READ_WEIGHTS]["source"] == "file"
    assert lines["graph"]["source"] == "computed"
    assert "dry run" not in json.dumps(lines)


def test_a_plan_that_its_engine_cannot_do(server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, plan = said(
        capsys, "plan", "demo", "--engine", str(server), "--unified", "--parallel", "2"
    )
    assert status == 1
    (finding,) = (one for one in plan["findings"] if one["severity"] == "fail")
    assert finding["code"] == "engine-refuses"
    assert "a cache that all streams share" in finding["evidence"]


@pytest.mark.parametrize("verb", ["plan", "up", "doctor"])
def test_an_engine_that_is_not_there(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = [] if verb == "plan" else ["--port", "0"]
    status, found = said(capsys, verb, "demo", "--engine", "nobody", *port)
    assert status == 2
    assert found["error"]["code"] == "no-such-engine"
    assert "embedded" in found["error"]["hint"]


def test_a_plan_for_another_engine_is_exported_in_its_words(
    server: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    _, value = said(capsys, "plan", "demo", "--engine", str(server), "--parallel", "2")
    plan.write_text(json.dumps(value))
    for target, name in (("llama-server", "llama-server.sh"), ("llama-swap", "llama-swap.yaml")):
        _, found = said(capsys, "export", str(plan), "--to", target)
        (text,) = (file["text"] for file in found["files"] if file["name"] == name)
        assert shlex.quote(str(server)) in text
        assert "--run-time-repack" in text
        assert "--kv-unified" not in text
        assert found["unexpressed"] == []
    for target in ("compose", "ollama", "llama-server-ini"):
        _, found = said(capsys, "export", str(plan), "--to", target)
        assert "run-time-repack" not in json.dumps(found["files"])
        assert "engine" in [one["setting"] for one in found["unexpressed"]]


def test_export_plans_a_model_with_settings(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = said(capsys, "export", str(model_path()), "--to", "llama-server", *SETTINGS)
    text = found["files"][0]["text"]
    for words in ("--no-repack", "--load-mode none", "--spec-type ngram-map-k", "--batch-size 700"):
        assert words in text


def test_a_plan_takes_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text("{}")
    status, found = said(capsys, "export", str(plan), "--to", "vllm", "--no-repack")
    assert (status, found["error"]["code"]) == (2, "usage")
    assert "settings already" in found["error"]["message"]


def test_what_runs_takes_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = said(capsys, "run", "hello", "--url", "http://127.0.0.1:9", "--threads", "1")
    assert (status, found["error"]["code"]) == (2, "usage")


def test_with_settings_a_model_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where an endpoint runs: it has settings of its own."""
    asked = []

    @contextmanager
    def nothing() -> Iterator[None]:
        yield

    def prepare(text: str, wishes: Any) -> Any:
        asked.append((text, wishes))
        return nothing()

    async def running(model: str | None) -> endpoint.Running:
        return endpoint.Running("http://there", model)

    monkeypatch.setattr("moestro.cli.launch.prepare", prepare)
    monkeypatch.setattr(endpoint, "_find_running", running)
    names = {param.name for param in engine_options(lambda: None).__click_params__}
    nothing_chosen = dict.fromkeys(names)
    assert isinstance(endpoint.find("demo", None, nothing_chosen), endpoint.Running)
    assert asked == []
    endpoint.find("demo", None, {**nothing_chosen, "unified": False, "no_repack": True})
    ((name, wishes),) = asked
    assert (name, wishes.repack, wishes.threads) == ("demo", False, None)
    assert wishes_of({**nothing_chosen, "unified": False}).repack is None
