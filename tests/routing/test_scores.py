from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moestro.errors import ModelError
from moestro.routing.sample import router_distribution
from moestro.routing.scores import (
    GATINGS,
    divergences,
    entropies,
    log_router_distribution,
)

any_logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 9)),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@settings(max_examples=80, deadline=None)
@given(any_logits, st.sampled_from(sorted(GATINGS)))
def test_rows_are_distributions_or_nan(logits: np.ndarray, gating: str) -> None:
    found = router_distribution(logits, gating)
    broken = ~np.isfinite(logits).all(axis=1)
    assert found.shape == logits.shape
    assert np.isnan(found[broken]).all()
    assert (found[~broken] >= 0).all()
    assert found[~broken].sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gating", "scores"),
    [
        ("softmax", [1.0, math.e]),
        ("softmax-of-chosen", [1.0, math.e]),
        ("unknown", [1.0, math.e]),
        ("sigmoid", [0.5, 1 / (1 + math.exp(-1))]),
        ("sqrt-softplus", [math.log(2) ** 0.5, math.log(1 + math.e) ** 0.5]),
    ],
)
def test_each_gating_by_hand(gating: str, scores: list[float]) -> None:
    expected = np.array(scores) / sum(scores)
    assert router_distribution([[0.0, 1.0]], gating)[0] == pytest.approx(expected)


def test_logarithms_hold_what_shares_cannot() -> None:
    logits = [[-2000.0, 0.0]]
    assert log_router_distribution(logits, "softmax")[0, 0] == pytest.approx(-2000)
    assert log_router_distribution(logits, "sigmoid")[0, 0] == pytest.approx(-2000 + math.log(2))
    # √softplus halves the exponent.
    expected = -1000 - 0.5 * math.log(math.log(2))
    assert log_router_distribution(logits, "sqrt-softplus")[0, 0] == pytest.approx(expected)


def test_a_gating_nobody_knows_is_refused() -> None:
    with pytest.raises(ModelError, match="softmx"):
        router_distribution([[0.0]], "softmx")


def test_entropy_and_divergence_by_hand() -> None:
    even = np.log([[0.5, 0.5]])
    leaning = np.log([[0.75, 0.25]])
    assert entropies(np.exp(even), even) == pytest.approx([math.log(2)])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert divergences(np.exp(even), even, leaning) == pytest.approx([expected])
    assert divergences(np.exp(even), even, even).tolist() == [0.0]
