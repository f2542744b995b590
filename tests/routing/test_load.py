from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moestro.routing import load

some_counts = hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 1000)).filter(
    lambda counts: counts.sum() > 0
)


@pytest.mark.parametrize("experts", [1, 2, 16, 256])
def test_even_load(experts: int) -> None:
    counts = np.full(experts, 7.0)
    assert load.effective_experts(counts) == pytest.approx(experts)
    assert load.evenness(counts) == pytest.approx(1)
    assert load.gini(counts) == pytest.approx(0)
    assert load.max_over_mean(counts) == pytest.approx(1)
    assert load.busiest_share(counts) == pytest.approx(math.ceil(experts / 10) / experts)


def test_one_expert_does_everything() -> None:
    counts = np.array([0.0, 5.0, 0.0, 0.0])
    assert load.effective_experts(counts) == pytest.approx(1)
    assert load.evenness(counts) == 0
    assert load.gini(counts) == pytest.approx(3 / 4)
    assert load.max_over_mean(counts) == 4
    assert load.busiest_share(counts) == 1


def test_by_hand() -> None:
    counts = np.array([2.0, 1.0, 1.0])
    assert load.entropy(counts) == pytest.approx(1.5 * math.log(2))
    assert load.effective_experts(counts) == pytest.approx(2**1.5)
    # Mean absolute difference of all pairs, over twice the mean: (4 · 1/4) / 9 / (2 · 1/3).
    assert load.gini(counts) == pytest.approx(1 / 6)
    assert load.shift(counts, np.array([0.0, 1.0, 1.0])) == pytest.approx(0.5)
    assert load.shift(np.array([1.0, 0.0]), np.array([0.0, 9.0])) == 1


@settings(max_examples=60, deadline=None)
@given(some_counts, st.randoms(use_true_random=False))
def test_names_and_number_of_selections_do_not_matter(counts: np.ndarray, random) -> None:
    order = list(range(len(counts)))
    random.shuffle(order)
    for figure in (load.entropy, load.gini, load.busiest_share, load.max_over_mean):
        assert figure(3 * counts[order]) == pytest.approx(figure(counts))
    assert 1 - 1e-9 <= load.effective_experts(counts) <= len(counts) * (1 + 1e-9)
    assert load.shift(counts, counts) == 0


def test_rows_are_looked_at_one_by_one() -> None:
    counts = np.array([[1.0, 1.0], [0.0, 2.0]])
    assert load.effective_experts(counts) == pytest.approx([2, 1])


def test_nothing_selected_is_unknown() -> None:
    assert np.isnan(load.effective_experts(np.zeros(3)))
