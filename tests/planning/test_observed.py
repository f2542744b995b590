"""Predicted against observed, and what later forecasts make of it."""

from __future__ import annotations

import pytest

from moestro.planning.estimate import Estimate
from moestro.planning.observed import Observation, Residuals, corrected, observations
from moestro.planning.settings import Source

FORECAST = Estimate(100.0, 90.0, 110.0, "measured")


def seen_as(*ratios: tuple[str, float], source: Source = "measured") -> Residuals:
    return Residuals(tuple((name, source, ratio) for name, ratio in ratios))


def run(architecture: str, predicted: float, observed: float) -> Observation:
    return Observation("2026-01-01T00:00:00", "m", architecture, predicted, observed, "measured")


def test_without_runs_nothing_changes() -> None:
    assert corrected(FORECAST, Residuals(), "llama") is FORECAST


def test_few_runs_move_a_little_many_move_all_the_way() -> None:
    seen = [corrected(FORECAST, seen_as(*[("llama", 0.8)] * n), "llama") for n in (1, 4, 100)]
    expected = [estimate.expected for estimate in seen]
    assert 100 > expected[0] > expected[1] > expected[2]
    assert expected[2] == pytest.approx(80, rel=0.01)


def test_the_own_architecture_counts_where_it_ran() -> None:
    seen = seen_as(*[("llama", 0.5)] * 50, *[("qwen3moe", 1.0)] * 50)
    own = corrected(FORECAST, seen, "qwen3moe")
    assert own.expected == pytest.approx(100)
    other = corrected(FORECAST, seen, "deepseek2")
    assert 50 < other.expected < 100


def test_the_range_holds_the_ratios_seen() -> None:
    seen = seen_as(*(("llama", ratio) for ratio in (0.5, 0.9, 1.0, 1.1, 1.6)))
    wide = corrected(FORECAST, seen, "llama")
    assert wide.low <= 50
    assert wide.high >= 160
    assert wide.low <= wide.expected <= wide.high


def test_broken_runs_teach_nothing() -> None:
    runs = [run("llama", 100.0, 0.001), run("llama", 0.0, 5.0), run("llama", 100.0, 90.0)]
    assert Residuals.of(runs).decode == (("llama", "measured", 0.9),)


def test_what_is_stored_may_be_anything() -> None:
    good = run("llama", 1.0, 1.0)
    assert observations([good.to_json(), {"x": 1}, 3, None]) == (good,)
    assert observations({"a": 1}) == ()


def test_ratios_against_assumed_rates_say_nothing_about_measured_ones() -> None:
    seen = seen_as(("llama", 0.5), ("llama", 0.5), source="assumed")
    assert corrected(FORECAST, seen, "llama") is FORECAST
