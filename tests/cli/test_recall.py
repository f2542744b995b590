"""What `tune` found earlier: which result a plan begins with, and what it says of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.cli.launch import prepare
from moestro.cli.main import main
from moestro.cli.planning import forecaster_for
from moestro.cli.recall import Recalled, by_fit, completed, explained, recalled, told_of
from moestro.demo import model_path
from moestro.engine.registry import embedded
from moestro.findings import Severity
from moestro.hardware import this_inventory
from moestro.load.scenarios import random_scenario, scenario_named
from moestro.model import LocalFile, ModelSpec, read_model
from moestro.planning import Plan, Planner, Wishes, make_plan
from moestro.planning.settings import FlashAttention, Reason, Settings
from moestro.tune.result import TuneResult
from moestro.tune.statistics import UNCHANGED, Interval
from moestro.tune.store import keep, stored
from moestro.tune.workload import Work

MACHINE = "a-machine"
CHAT = Work(scenario_named("chat"), 1)  # 200 tokens in, 128 out
LONG = Work(scenario_named("long-prompt"), 1)  # 2048 in, 32 out
USERS = Work(scenario_named("users"), 4)  # 275 in, 96 out
START = Settings(context=2048, parallel=2, threads=1)


@pytest.fixture(autouse=True)
def _own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def model() -> ModelSpec:
    return read_model(LocalFile(model_path()))


def tuned(work: Work, **changes: Any) -> TuneResult:
    found = TuneResult(
        objective="requests per second",
        start=START,
        settings=replace(START, flash_attention="off"),
        gain=Interval(1.3, 1.2, 1.4),
        confirmed=True,
        trials=(),
        reasons=(Reason("flash_attention", "off: 30 % faster than auto", "measured"),),
        spent_seconds=60.0,
        budget_seconds=90.0,
        noise=0.03,
        workload=work.label,
        engine_version=embedded().version,
    )
    return found.but(**changes)


def kept(*works: Work, identity: str = MACHINE, **changes: Any) -> Path:
    """One after the other; the path of the file in which they are."""
    paths = [keep(identity, [model_path()], work, tuned(work, **changes)) for work in works]
    assert paths[-1] is not None
    return paths[-1]


@pytest.mark.parametrize(
    ("wishes", "first"),
    [
        (Wishes(), "long-prompt, 1 user"),  # the last one
        (Wishes(threads=1), "long-prompt, 1 user"),
        (Wishes(parallel=4), "users, 4 users"),
        (Wishes(parallel=8), "users, 4 users"),
        (Wishes(parallel=1), "long-prompt, 1 user"),  # before chat, which was earlier
        (Wishes(prompt_tokens=180), "chat, 1 user"),
        (Wishes(prompt_tokens=8000), "long-prompt, 1 user"),
        (Wishes(prompt_tokens=260), "users, 4 users"),
        (Wishes(prompt_tokens=260, parallel=1), "chat, 1 user"),
        (Wishes(output_tokens=500), "chat, 1 user"),
        (Wishes(context=1024), "users, 4 users"),  # in which a long prompt has no room
    ],
)
def test_the_workload_that_fits_best_comes_first(
    model: ModelSpec, wishes: Wishes, first: str
) -> None:
    kept(CHAT, USERS, LONG)
    assert by_fit(stored(MACHINE, [model_path()]).results, wishes)[0].workload == first
    found = recalled(model, MACHINE, wishes)
    assert found.tuned is not None
    assert found.tuned.workload == first
    assert len(found.others) == 2
    assert first not in found.others


def test_a_workload_without_prompts_has_a_place_too() -> None:
    kept(Work(random_scenario(0, 10), 1), CHAT)
    results = stored(MACHINE, [model_path()]).results
    assert by_fit(results, Wishes(prompt_tokens=1))[0].prompt_tokens == 0


def test_untuned_and_other_machines_have_none(model: ModelSpec) -> None:
    kept(CHAT)
    assert recalled(model, MACHINE, Wishes(untuned=True)) == Recalled()
    assert recalled(model, "another-machine", Wishes()) == Recalled()


def test_what_another_engine_ran_says_nothing_of_the_one_that_is_asked_for(
    model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(embedded(), id="built", version="b1")
    monkeypatch.setattr(
        "moestro.engine.registry.engine_named",
        lambda name: embedded() if name == "embedded" else here,
    )
    kept(CHAT)
    kept(LONG, settings=replace(START, engine="built"), engine_version="b1")
    for engine, workload in (("embedded", "chat, 1 user"), ("./built", "long-prompt, 1 user")):
        found = recalled(model, MACHINE, Wishes(engine=engine))
        assert found.tuned is not None
        assert (found.tuned.workload, found.others) == (workload, ())


def test_what_is_out_of_date_is_left_out_and_said(model: ModelSpec) -> None:
    kept(CHAT, engine_version="0.0.1")
    (finding,) = recalled(model, MACHINE, Wishes()).findings
    assert (finding.code, finding.severity) == ("tuned-left-out", Severity.WARN)
    assert finding.evidence is not None
    assert "for chat, 1 user: its engine was 0.0.1" in finding.evidence
    assert "moestro tune" in str(finding.fix)
    kept(LONG)  # one that can be believed takes its place
    found = recalled(model, MACHINE, Wishes(prompt_tokens=200))
    assert found.tuned is not None
    assert (found.tuned.workload, found.findings) == ("long-prompt, 1 user", ())


def test_an_engine_that_is_gone_is_said(model: ModelSpec) -> None:
    kept(CHAT, settings=replace(START, engine="llama.cpp-b1"))
    found = recalled(model, MACHINE, Wishes())
    assert found.tuned is None
    assert "There is no engine llama.cpp-b1" in str(found.findings[0].evidence)


def test_a_model_that_cannot_be_looked_at_is_said(
    model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(CHAT)
    elsewhere = Path("/nowhere/model.gguf")
    monkeypatch.setattr("moestro.cli.recall.stored", lambda *_: stored(MACHINE, [elsewhere]))
    (finding,) = recalled(model, MACHINE, Wishes()).findings
    assert finding.severity is Severity.WARN
    assert "/nowhere/model.gguf could not be read" in str(finding.evidence)
    assert finding.fix == "Check the path, and that this user may read it."


def bare_plan(model: ModelSpec, wishes: Wishes) -> Plan:
    machine = this_inventory()
    planner = Planner(model, machine, wishes, forecaster_for(model, machine))
    return make_plan(planner, with_alternatives=False)


def reasons_of(
    model: ModelSpec, wishes: Wishes, asked: Wishes, result: TuneResult
) -> dict[str, Reason]:
    plan = bare_plan(model, asked)
    return {one.setting: one for one in explained(plan, result, wishes).reasons}


def test_reasons_say_for_which_workload_it_was_found(model: ModelSpec) -> None:
    asked = Wishes(flash_attention="off", threads=1, parallel=2, unified=True)
    found = reasons_of(model, Wishes(), asked, tuned(CHAT))
    because = "off: 30 % faster than auto; for chat, 1 user"
    assert found["flash_attention"] == Reason("flash_attention", because, "measured")
    for name in ("threads", "unified"):  # none of which the user asked for
        assert found[name] == Reason(name, "measured with it for chat, 1 user", "measured")
    assert found["context"].source != "measured"


@pytest.mark.parametrize("value", ["on", "off"])  # another one than was found, and the same
def test_what_the_user_fixed_keeps_his_reason(model: ModelSpec, value: FlashAttention) -> None:
    asked = Wishes(flash_attention=value, threads=1)
    found = reasons_of(model, Wishes(flash_attention=value), asked, tuned(CHAT))
    assert found["flash_attention"] == Reason("flash_attention", "you asked for it", "user")
    assert found["threads"].source == "measured"


def test_a_reason_counts_only_for_the_value_it_is_of(model: ModelSpec) -> None:
    odd = tuned(CHAT, settings=replace(START, cache_on_host=True))
    odd = odd.but(reasons=(Reason("cache_on_host", "on: 9 % faster", "measured"),))
    assert "cache_on_host" not in reasons_of(model, Wishes(), Wishes(), odd)


def test_a_start_that_stayed_is_said_to_have_stayed(model: ModelSpec) -> None:
    result = tuned(CHAT, settings=START, gain=UNCHANGED, reasons=())
    found = reasons_of(model, Wishes(), Wishes(threads=1), result)
    because = "nothing tried was faster for chat, 1 user"
    assert found["threads"] == Reason("threads", because, "measured")

    kept(CHAT, settings=START, gain=UNCHANGED, reasons=())
    plan = told_of(bare_plan(model, Wishes()), recalled(model, MACHINE, Wishes()), Wishes())
    (finding,) = [one for one in plan.findings if one.code == "tuned"]
    assert "found nothing faster" in finding.title
    assert "×" not in str(finding.evidence)


def test_plan_says_what_was_used_and_what_else_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    identity = this_inventory().identity
    kept(CHAT, LONG, identity=identity, confirmed=False)
    assert main(["plan", "demo", "--json", "--context", "512"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["flash_attention"] == "off"
    (finding,) = [one for one in plan["findings"] if one["code"] == "tuned"]
    said = finding["evidence"]
    assert "for chat, 1 user: 200 tokens in, 128 out; 1.30×" in said
    assert "(not confirmed)" in said
    assert "kept too: long-prompt, 1 user" in said
    assert "--parallel" in finding["fix"]


def test_what_is_damaged_is_a_warning_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    kept(CHAT, identity=this_inventory().identity).write_bytes(b"{")
    assert main(["plan", "demo", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (finding,) = [one for one in plan["findings"] if one["code"] == "tuned-unreadable"]
    assert finding["severity"] == "warn"
    assert "--untuned" in finding["fix"]
    assert main(["plan", "demo", "--json", "--untuned"]) == 0
    assert not json.loads(capsys.readouterr().out)["findings"]


def test_what_does_not_go_with_the_wishes_is_left_out_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept(CHAT, identity=this_inventory().identity)  # without flash attention
    assert main(["plan", "demo", "--json", "--cache-type", "q8_0"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["flash_attention"] == "auto"
    (finding,) = [one for one in plan["findings"] if one["code"] == "tuned-left-out"]
    assert "for chat, 1 user: A quantized cache needs flash attention" in finding["evidence"]


def test_up_samples_a_file_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For what `verify` said of it and for what `tune` found."""
    from moestro.model import identity

    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model_path().read_bytes())
    os.utime(copy, ns=(0, model_path().stat().st_mtime_ns))
    kept(CHAT, identity=this_inventory().identity)
    identity._sampled.cache_clear()
    prepared = prepare(str(copy), Wishes())
    assert prepared.plan.settings.flash_attention == "off"  # so it was looked at
    assert identity._sampled.cache_info().misses == 1
    assert identity._sampled.cache_info().hits >= 1


def test_what_the_user_had_fixed_is_not_recalled(model: ModelSpec) -> None:
    settings = replace(START, threads=1, flash_attention="off")
    result = tuned(CHAT, settings=settings)
    keep(MACHINE, [model_path()], CHAT, result, frozenset({"threads"}))
    found = recalled(model, MACHINE, Wishes())
    assert found.tuned is not None
    wishes = completed(Wishes(), found.tuned.settings, with_gpus=False, fixed=found.tuned.fixed)
    assert (wishes.threads, wishes.flash_attention) == (None, "off")
    kept(CHAT)
    by_all = stored(MACHINE, [model_path()]).results
    assert by_fit(by_all, Wishes())[0].fixed == frozenset()
