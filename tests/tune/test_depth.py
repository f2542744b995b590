"""The curve of speed over depths and streams."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moestro.tune.depth import (
    DepthCurve,
    Step,
    acceptance_of,
    step_seconds,
    streams_to_measure,
    tokens_per_step,
)


def curve(cost: float = 0.3, streams: tuple[int, ...] = (1, 2, 4, 8)) -> DepthCurve:
    """A step of depth d takes 1 + cost · d; each doubling of streams makes it 1.5 times as long."""
    steps = {}
    for depth in range(5):
        for at in streams:
            seconds = (1 + cost * depth) * 1.5 ** math.log2(at) / 100
            steps[depth, at] = Step(seconds, seconds * 0.98, seconds * 1.02)
    return DepthCurve(steps)


def test_tokens_of_a_step() -> None:
    assert tokens_per_step((0.8, 0.5), 2) == pytest.approx(1 + 0.8 + 0.4)
    assert tokens_per_step((0.5,), 3) == pytest.approx(1 + 0.5 + 0.25 + 0.125)
    assert tokens_per_step((0.9,), 0) == 1
    assert tokens_per_step((), 4) == 1


def test_seconds_of_a_step_out_of_a_run() -> None:
    """100 tokens of 2 streams, 20 of them drafts: 40 steps."""
    assert step_seconds(8.0, 100, 20, 2) == pytest.approx(0.2)
    assert step_seconds(8.0, 20, 20, 2) is None
    assert step_seconds(0.0, 20, 2, 2) is None


def test_acceptance_by_place() -> None:
    assert acceptance_of((80, 40, 0, 0), 100) == (0.8, 0.5, 0.0)
    assert acceptance_of((), 100) == ()
    assert acceptance_of((5,), 0) == ()


def test_best_depth_is_the_fastest_one() -> None:
    some = curve()
    for a in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        best = some.best_depth((a,), 1)
        speeds = [tokens_per_step((a,), d) / (1 + 0.3 * d) for d in range(5)]
        assert best is not None
        assert speeds[best] == pytest.approx(max(speeds))
    assert some.best_depth((), 1) == 0
    assert DepthCurve({}).best_depth((0.9,), 1) is None


def test_the_acceptance_from_which_it_pays() -> None:
    some = curve(0.3)
    worth = some.acceptance_worth(1, 1)
    assert worth == pytest.approx(0.3, abs=1e-6)
    assert curve(1.5).acceptance_worth(1, 1) is None


def test_streams_between_those_measured() -> None:
    some = curve(streams=(1, 4))
    middle = some.step(2, 2)
    assert middle is not None
    assert middle.seconds == pytest.approx(1.6 * 1.5 / 100)
    assert some.step(2, 16) == some.step(2, 4)
    assert some.step(7, 1) is None
    assert streams_to_measure(4) == (1, 2, 4)
    assert streams_to_measure(3) == (1, 2, 3)


def test_a_switch_needs_more_than_a_swing() -> None:
    some = curve()
    assert some.switch(0, (0.35,), 1) is None  # 4 % faster
    assert some.switch(0, (0.8,), 1) == some.best_depth((0.8,), 1)
    assert some.switch(3, (0.05,), 1) == 0
    best = some.best_depth((0.8,), 1)
    assert best is not None
    assert some.switch(best, (0.8,), 1) is None


@given(st.floats(0, 1), st.integers(0, 4), st.sampled_from((1, 2, 3, 8)), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_switching_never_comes_straight_back(a: float, depth: int, n: int, cost: float) -> None:
    some = curve(cost)
    to = some.switch(depth, (a,), n)
    if to is not None:
        assert some.switch(to, (a,), n) is None


def test_json_goes_round_and_damage_is_left_out() -> None:
    some = curve()
    written = json.loads(json.dumps(some.to_json()))
    again = DepthCurve.from_json(written)
    assert again is not None
    assert again.steps == some.steps
    bad = [
        {"depth": -1, "streams": 1, "seconds_per_step": 1, "low": 1, "high": 1},
        {"depth": True, "streams": 1, "seconds_per_step": 1, "low": 1, "high": 1},
        {"depth": 9, "streams": 1, "seconds_per_step": 0, "low": 0, "high": 1},
        {"depth": 9, "streams": 1, "seconds_per_step": math.inf, "low": 1, "high": math.inf},
        {"depth": 9, "streams": 1, "seconds_per_step": 2, "low": 3, "high": 4},
        {"depth": 9, "streams": 1},
        None,
        7,
    ]
    again = DepthCurve.from_json([*written, *bad])
    assert again is not None
    assert again.steps == some.steps
    for nothing in (None, {}, "x", [], bad):
        assert DepthCurve.from_json(nothing) is None


def test_more_streams_take_longer_steps() -> None:
    steps = [curve().step(1, n) for n in (1, 2, 3, 4, 6, 8)]
    assert all(
        a is not None and b is not None and a.seconds < b.seconds for a, b in pairwise(steps)
    )
