from __future__ import annotations

import math

import numpy as np
import pytest

from moestro.routing.unseen import (
    DesignEffect,
    Unseen,
    design_effect,
    highest_missed_rate,
    lost,
    unseen,
)
from tests.routing.simulate import clumped_counts

INDEPENDENT = DesignEffect(1.0, 0.0)


def test_independent_tokens_by_hand() -> None:
    # (1 − π)^1000 = 1 %
    assert highest_missed_rate(1000, INDEPENDENT, 0.01) == pytest.approx(1 - 0.01 ** (1 / 1000))
    # Tokens that come in tens say a tenth.
    assert highest_missed_rate(1000, DesignEffect(10, 0), 0.01) == pytest.approx(
        1 - 0.01 ** (1 / 100)
    )


def test_what_is_missed_is_a_part_of_an_even_share() -> None:
    counts = np.array([0.0, 500, 700, 800])
    found = unseen(counts, 1000, 2, INDEPENDENT, hypotheses=40)
    rate = 1 - (0.01 / 40) ** (1 / 1000)
    assert found.experts == (0,)
    assert found.at_most == pytest.approx(rate / (2 / 4))
    assert found.dead == (0,)
    assert unseen(counts, 100, 2, INDEPENDENT, hypotheses=40).dead == ()


def test_too_few_groups_say_nothing() -> None:
    assert design_effect(np.ones((4, 3)), np.full(4, 9.0)) is None
    assert unseen(np.array([0.0, 5]), 1000, 1, None, 2) == Unseen((0,), None)
    assert unseen(np.array([0.0, 5]), 1000, 1, None, 2).dead == ()
    assert lost(np.array([100.0, 5]), np.array([0.0, 5]), 1000, None, 2) == ()


def test_experts_of_which_every_token_takes_all_do_not_vary() -> None:
    assert design_effect(np.full((6, 2), 50.0), np.full(6, 50.0)) is None


def test_independent_tokens_have_a_design_effect_of_one() -> None:
    generator = np.random.default_rng(1)
    mean = np.linspace(2, 40, 64)
    effect = design_effect(generator.binomial(512, mean / 512, (40, 64)), np.full(40, 512.0))
    assert effect is not None
    for rate in (0.002, 0.05):
        assert effect.at(rate) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize(("clump", "spread"), [(4, 0.0), (1, 0.8), (3, 0.6)])
def test_the_design_effect_is_found_again(clump: float, spread: float) -> None:
    # Geometric clumps of mean m have E[X²]/E[X] = 2m − 1; varying rates add cv² · mean.
    generator = np.random.default_rng(2)
    mean = generator.lognormal(2.5, 0.8, 256)
    effect = design_effect(clumped_counts(generator, 64, mean, clump, spread), np.full(64, 5120.0))
    assert effect is not None
    for count in (5.0, 30.0):
        expected = 2 * clump - 1 + spread**2 * count
        # Careful is allowed, careless is not.
        assert 0.85 * expected <= effect.at(count / 5120) <= 2 * expected + 1


def test_where_loads_are_alike_the_excess_is_taken_as_clumping() -> None:
    """A slope cannot be told from loads that hardly differ; then weak experts get no discount."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        mean = generator.lognormal(2.5, 0.05, 64)
        counts = clumped_counts(generator, 16, mean, 4, 0.0)
        effect = design_effect(counts, np.full(16, 512.0))
        assert effect is not None
        assert effect.at(0.1 * mean.mean() / 512) > 0.8 * 7


@pytest.mark.parametrize(("clump", "spread"), [(1, 0.0), (5, 0.0), (1, 1.0), (4, 0.7)])
def test_an_expert_is_rarely_missed_though_it_is_as_busy_as_that(
    clump: float, spread: float
) -> None:
    """Asked at 5 % for one expert, at loads at which it is indeed missed now and then."""
    generator = np.random.default_rng(3)
    tokens, chunks, runs = 512.0, 24, 80
    others = generator.lognormal(2.0, 0.7, 60)
    missed = 0
    for selections in np.geomspace(1.5, 60, 8):
        own, wrong = selections / chunks, 0
        for _ in range(runs):
            counts = clumped_counts(generator, chunks, np.append(others, own), clump, spread)
            if counts[:, -1].sum():
                continue
            missed += 1
            effect = design_effect(counts, np.full(chunks, tokens))
            assert effect is not None
            wrong += highest_missed_rate(tokens * chunks, effect, 0.05) < own / tokens
        assert wrong <= 0.1 * runs, f"expected: at most 5 % of {runs}, with luck less"
    assert missed > 20


def test_enough_text_finds_the_dead_and_none_of_the_weak() -> None:
    generator = np.random.default_rng(4)
    even = 512 * 8 / 256
    mean = generator.lognormal(0, 0.6, 256) * even
    mean[:20] = 0.1 * even
    mean[20:25] = 0.0
    found = []
    for chunks in (5, 256):
        counts = clumped_counts(generator, chunks, mean, 3, 0.7)
        groups = counts.reshape(min(chunks, 64), -1, 256).sum(axis=1)
        size = np.full(len(groups), 512.0 * chunks / len(groups))
        effect = design_effect(groups, size)
        found.append(unseen(counts.sum(axis=0), 512 * chunks, 8, effect, 256 * 40))
    short, long = found
    assert len(short.experts) > 5, "a short text misses living experts too"
    assert short.dead == ()
    assert long.dead == (20, 21, 22, 23, 24)


def test_lost_needs_more_selections_than_tosses_would_lose() -> None:
    # 2^−n < 1 % / 100 needs n > 13.3.
    reference, candidate = np.array([13.0, 14, 14, 0]), np.array([0.0, 0, 1, 0])
    assert lost(reference, candidate, 1000, INDEPENDENT, 100) == (1,)
    assert lost(reference, candidate, 1000, DesignEffect(2.0, 0.0), 100) == ()
    assert math.log2(100 / 0.01) == pytest.approx(13.29, abs=0.01)
