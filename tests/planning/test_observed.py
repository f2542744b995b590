"""Predicted against observed, and what later forecasts make of it."""

from __future__ import annotations

import pytest

from moestro.planning.estimate import Estimate
from moestro.planning.observed import Observation, Residuals, corrected, observations

FORECAST = Estimate(100.0, 90.0, 110.0, "measured")


def run(architecture: str, predicted: float, observed: float) -> Observation:
    return Observation("2026-01-01T00:00:00", "m", architecture, predicted, observed)


def test_without_runs_nothing_changes() -> None:
    assert corrected(FORECAST, (), "llama") is FORECAST


def test_few_runs_move_a_little_many_move_all_the_way() -> None:
    seen = [corrected(FORECAST, (("llama", 0.8),) * count, "llama") for count in (1, 4, 100)]
    expected = [estimate.expected for estimate in seen]
    assert 100 > expected[0] > expected[1] > expected[2]
    assert expected[2] == pytest.approx(80, rel=0.01)


def test_the_own_architecture_counts_where_it_ran() -> None:
    seen = (("llama", 0.5),) * 50 + (("qwen3moe", 1.0),) * 50
    own = corrected(FORECAST, seen, "qwen3moe")
    assert own.expected == pytest.approx(100)
    other = corrected(FORECAST, seen, "deepseek2")
    assert 50 < other.expected < 100


def test_the_range_holds_the_ratios_seen() -> None:
    seen = tuple(("llama", ratio) for ratio in (0.5, 0.9, 1.0, 1.1, 1.6))
    wide = corrected(FORECAST, seen, "llama")
    assert wide.low <= 50
    assert wide.high >= 160
    assert wide.low <= wide.expected <= wide.high


def test_broken_runs_teach_nothing() -> None:
    runs = [run("llama", 100.0, 0.001), run("llama", 0.0, 5.0), run("llama", 100.0, 90.0)]
    assert Residuals.of(runs).decode == (("llama", 0.9),)


def test_what_is_stored_may_be_anything() -> None:
    good = run("llama", 1.0, 1.0)
    assert observations([good.to_json(), {"x": 1}, 3, None]) == (good,)
    assert observations({"a": 1}) == ()
