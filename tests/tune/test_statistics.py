"""Ratios of noisy pairs: what is believed, and how far."""

from __future__ import annotations

import math
import random

import pytest

from moestro.tune.statistics import (
    PRIOR_SCALE,
    SAME,
    Noise,
    Pair,
    Ratio,
    estimate,
    expected_gain,
)


def pairs(random_: random.Random, count: int, log: float, scatter: float) -> list[Pair]:
    return [Pair(random_.gauss(log, scatter), 1.0) for _ in range(count)]


def test_nothing_is_said_of_nothing() -> None:
    assert estimate([], Noise()) is None


def test_one_pair_decides_nothing() -> None:
    found = estimate([Pair(math.log(3), 1.0)], Noise())
    assert found is not None
    assert found.doubtful
    assert found.expected == pytest.approx(3)


def test_two_pairs_decide_a_large_effect_and_not_a_small_one() -> None:
    large = estimate([Pair(0.40, 1.0), Pair(0.43, 1.0)], Noise())
    small = estimate([Pair(0.01, 1.0), Pair(0.02, 1.0)], Noise())
    assert large is not None
    assert small is not None
    assert not large.doubtful
    assert large.low() > 1.2
    assert small.low() < 1 < small.high()  # although both say so, and nearly alike


def test_a_spike_neither_decides_nor_moves_much() -> None:
    spiked = estimate([Pair(0.0, 1.0), Pair(math.log(3), 1.0)], Noise())
    assert spiked is not None
    assert spiked.doubtful
    logs = [0.0, 0.01, math.log(3), -0.01, 0.02]
    found = estimate([Pair(log, 1.0) for log in logs], Noise())
    assert found is not None
    assert not found.doubtful
    assert abs(found.log) < 0.03
    assert found.low() < 1 < found.high() < 1.15


def test_ratio_and_inverse_are_the_same_statement() -> None:
    some = pairs(random.Random(1), 5, 0.1, 0.05)
    one, other = estimate(some, Noise()), estimate([Pair(-p.log, 1.0) for p in some], Noise())
    assert one is not None
    assert other is not None
    assert one.expected == pytest.approx(1 / other.expected)
    assert one.low() == pytest.approx(1 / other.high())


def test_the_pool_learns_the_machines_noise() -> None:
    for scatter in (0.01, 0.05, 0.15):
        random_, noise = random.Random(7), Noise()
        for key in range(30):
            noise.learn(key, pairs(random_, 4, random_.gauss(0, 0.5), scatter))
        assert noise.scale(1.0)[0] == pytest.approx(scatter, rel=0.25)


def test_spikes_are_not_noise() -> None:
    random_, noise = random.Random(3), Noise()
    for key in range(40):
        some = pairs(random_, 4, 0.0, 0.04)
        if key % 4 == 0:
            some[0] = Pair(math.log(3), 1.0)
        noise.learn(key, some)
    assert noise.scale(1.0)[0] < 0.07


def test_what_is_told_again_replaces_what_was() -> None:
    noise = Noise()
    noise.learn("a", [Pair(0.5, 1.0), Pair(-0.5, 1.0)])
    noise.learn("a", [])
    assert noise.scale(1.0)[0] == pytest.approx(PRIOR_SCALE)


def test_short_samples_have_noise_of_their_own() -> None:
    random_, noise = random.Random(5), Noise()
    for key in range(30):
        noise.learn(("long", key), pairs(random_, 4, 0.0, 0.02))
        short = [Pair(random_.gauss(0.0, 0.10), 0.25) for _ in range(4)]
        noise.learn(("short", key), short)
    assert noise.scale(0.25)[0] > 3 * noise.scale(1.0)[0]


@pytest.mark.parametrize(("scatter", "count"), [(0.02, 3), (0.042, 3), (0.042, 6), (0.14, 4)])
def test_intervals_hold_as_often_as_they_say(scatter: float, count: int) -> None:
    """Nominal 95 %; the pool is a floor, so a little more, and never much less."""
    random_ = random.Random(f"{scatter} {count}")
    held, tries = 0, 600
    for number in range(tries):
        if number % 6 == 0:
            noise = Noise()
            for key in range(10):  # what a search has seen by then
                noise.learn(key, pairs(random_, 4, 0.0, scatter))
        found = estimate(pairs(random_, count, 0.2, scatter), noise)
        assert found is not None
        held += found.interval.low <= math.exp(0.2) <= found.interval.high
    assert 0.92 <= held / tries <= 0.995


def test_products_add_their_doubt() -> None:
    one, other = Ratio(0.1, 0.03, 10, 3, False), Ratio(0.2, 0.04, 5, 2, False)
    both = one.times(other)
    assert (both.log, both.error) == (pytest.approx(0.3), pytest.approx(0.05))
    assert both.freedom == 5
    assert one.times(SAME).expected == pytest.approx(one.expected)


def test_what_a_closer_look_may_bring() -> None:
    assert expected_gain(0.1, 0.0) == 0.1
    assert expected_gain(-0.1, 0.0) == 0.0
    assert expected_gain(0.0, 0.1) == pytest.approx(0.1 / math.sqrt(2 * math.pi))
    assert expected_gain(-0.1, 0.01) < 1e-6
    assert expected_gain(-0.1, 0.1) > expected_gain(-0.1, 0.05) > 0
