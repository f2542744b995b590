"""What is kept of a search, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.cli import tuning
from moestro.cli.recall import fixed_settings
from moestro.demo import model_path
from moestro.hardware import this_inventory
from moestro.load.scenarios import scenario_named
from moestro.model import LocalFile, read_model
from moestro.planning import Wishes
from moestro.planning.settings import Settings
from moestro.tune.result import Tried, TuneResult
from moestro.tune.statistics import UNCHANGED, Interval
from moestro.tune.store import stored
from moestro.tune.workload import Work

WORK = Work(scenario_named("chat"), 1)
START = Settings(context=2048, parallel=2, threads=1)


@pytest.fixture(autouse=True)
def _own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))


def stayed(**changes: Any) -> TuneResult:
    return TuneResult(
        objective="requests per second", start=START, settings=START, gain=UNCHANGED,
        confirmed=True, trials=(), reasons=(), spent_seconds=6.0, budget_seconds=90.0, noise=0.03,
        workload=WORK.label, engine_version="1",
    ).but(**changes)  # fmt: skip


def test_a_search_without_a_comparison_does_not_replace_an_earlier_one() -> None:
    model = read_model(LocalFile(model_path()))
    faster = replace(START, ubatch=256)
    gain = Interval(1.3, 1.2, 1.4)
    assert tuning._kept(model, "m", WORK, Wishes(), stayed(settings=faster, gain=gain)) is None
    assert tuning._kept(model, "m", WORK, Wishes(), stayed()) is None
    (kept,) = stored("m", [model_path()]).results
    assert kept.settings == faster
    compared = (Tried("ubatch 256", "ubatch", "lost", "slower", faster, pairs=2),)
    assert tuning._kept(model, "m", WORK, Wishes(), stayed(trials=compared)) is None
    (kept,) = stored("m", [model_path()]).results
    assert kept.settings == START


def test_an_earlier_result_that_says_more_stays_and_that_is_said() -> None:
    model = read_model(LocalFile(model_path()))
    found = stayed(settings=replace(START, ubatch=256), gain=Interval(1.3, 1.2, 1.4))
    assert tuning._kept(model, "m", WORK, Wishes(), found) is None
    unsure = found.but(confirmed=False, spent_seconds=1.0)
    said = tuning._kept(model, "m", WORK, Wishes(), unsure)
    assert said is not None
    assert "stays in use" in said.title
    assert tuning._kept(model, "m", WORK, Wishes(threads=1), unsure) is None  # another question
    assert {one.spent_seconds for one in stored("m", [model_path()]).results} == {6.0, 1.0}


def test_the_plan_does_not_say_that_the_user_asked_for_what_was_found() -> None:
    model = read_model(LocalFile(model_path()))
    result = stayed(settings=replace(START, flash_attention="off"), gain=Interval(1.3, 1.2, 1.4))
    plan = tuning._planned(model, this_inventory(), "m", Wishes(threads=1), result)
    asked = {one.setting for one in plan.reasons if one.source == "user"}
    assert asked == {"threads"}
    assert plan.settings.flash_attention == "off"


def test_one_wish_for_the_cache_fixes_both_settings() -> None:
    found = fixed_settings(Wishes(cache_type="f16", mtp=0, prompt_tokens=5))
    assert found == {"cache_type_k", "cache_type_v", "mtp_depth"}
