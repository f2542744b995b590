from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moestro.routing.interval import SEED, Interval, bootstrap, bootstrap_mean, student_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (15, 2.1314), (63, 1.9983), (500, 1.9647)],
)
def test_students_quantile_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-4)


def test_the_value_is_the_ratio_of_the_sums_not_the_mean_of_the_ratios() -> None:
    found = bootstrap_mean([1, 30], [1, 10])
    assert found is not None
    assert found.value == pytest.approx(31 / 11)


def test_without_tokens_there_is_no_value() -> None:
    assert bootstrap_mean([], []) is None
    assert bootstrap_mean([0, 0], [0, 0]) is None


def test_one_group_says_nothing_of_scatter() -> None:
    assert bootstrap_mean([3], [4]) == Interval(0.75, None, None)
    assert bootstrap_mean([3, 0], [4, 0]) == Interval(0.75, None, None)


def test_few_groups_have_students_interval() -> None:
    # Means 1, 2, 3: standard error 1/√3, and t with two degrees of freedom.
    found = bootstrap_mean([1, 2, 3], [1, 1, 1])
    assert found is not None
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, rel=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, rel=1e-4)


def test_a_share_is_never_more_than_all() -> None:
    found = bootstrap_mean([1, 3, 4], [4, 4, 4], bounds=(0, 1))
    assert found == Interval(8 / 12, 0.0, 1.0)


@pytest.mark.parametrize("groups", [2, 4, 5, 40])
def test_groups_that_agree_have_no_width(groups: int) -> None:
    found = bootstrap_mean(np.full(groups, 0.3), np.ones(groups))
    assert found is not None
    assert found.low == pytest.approx(0.3, abs=1e-12)
    assert found.high == pytest.approx(0.3, abs=1e-12)


def test_the_same_seed_gives_the_same_interval() -> None:
    sums = np.random.default_rng(3).normal(size=20)
    assert bootstrap_mean(sums, np.ones(20)) == bootstrap_mean(sums, np.ones(20))
    assert bootstrap_mean(sums, np.ones(20)) != bootstrap_mean(sums, np.ones(20), seed=4)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(5, 30), elements=st.floats(-100, 100, width=32)),
    st.floats(0.01, 100),
)
def test_ends_lie_among_the_groups_and_move_with_the_unit(means: np.ndarray, factor: float) -> None:
    found = bootstrap_mean(means, np.ones(len(means)))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert means.min() - 1e-9 <= found.low <= found.high <= means.max() + 1e-9
    scaled = bootstrap_mean(means * factor, np.ones(len(means)))
    assert scaled is not None
    assert scaled.low == pytest.approx(found.low * factor, rel=1e-6, abs=1e-6)
    assert scaled.high == pytest.approx(found.high * factor, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("groups", "least"), [(3, 0.92), (8, 0.90), (32, 0.90)])
def test_nineteen_of_twenty_intervals_hold_the_truth(groups: int, least: float) -> None:
    generator = np.random.default_rng(groups)
    held, widths = 0, []
    for _ in range(300):
        sizes = generator.integers(300, 600, size=groups).astype(float)
        found = bootstrap_mean(generator.normal(0.9, 0.02, groups) * sizes, sizes, resamples=600)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.9 <= found.high
        widths.append(found.high - found.low)
    assert least <= held / 300 <= 0.99
    if groups == 32:
        assert np.mean(widths) == pytest.approx(2 * 2.04 * 0.02 / 32**0.5, rel=0.15)


def test_ends_are_those_of_bca_with_tails_of_students_t() -> None:
    """Of a plain mean the acceleration is known: skewness / 6√n (Efron 1987)."""
    groups = 40
    means = np.random.default_rng(3).lognormal(size=groups)
    found = bootstrap_mean(means, np.ones(groups))
    assert found is not None
    generator, normal = np.random.default_rng(SEED), NormalDist()
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=2000) @ means / groups
    bias = normal.inv_cdf(float(np.mean(drawn < means.mean())))
    apart = means - means.mean()
    skewness = np.mean(apart**3) / np.mean(apart**2) ** 1.5
    acceleration = skewness / (6 * groups**0.5)
    for end, sign in ((found.low, -1), (found.high, 1)):
        moved = bias + sign * (groups / (groups - 1)) ** 0.5 * 2.02269
        level = normal.cdf(bias + moved / (1 - acceleration * moved))
        assert end == pytest.approx(np.quantile(drawn, level), rel=1e-3)
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.value > 2 * (found.value - found.low), "the long side is the right"


def test_any_statistic_of_sums_may_be_drawn() -> None:
    sums = np.random.default_rng(6).normal(5, 1, size=(20, 3))
    found = bootstrap(sums, lambda s: s[:, 0] * s[:, 1] / s[:, 2] ** 2)
    total = sums.sum(axis=0)
    assert found is not None
    assert found.value == pytest.approx(total[0] * total[1] / total[2] ** 2)


def test_a_figure_that_hangs_on_one_group_has_no_ends() -> None:
    assert bootstrap_mean([1, 0, 0], [2, 0, 0]) == Interval(0.5, None, None)
    columns = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    found = bootstrap(columns, lambda s: np.where(s[:, 1] > 0, s[:, 0], np.nan))
    assert found == Interval(1.0, None, None)


def test_json_has_the_three_numbers() -> None:
    assert Interval(1.0, None, 2.0).to_json() == {"value": 1.0, "low": None, "high": 2.0}
