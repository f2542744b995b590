from __future__ import annotations

import math

import numpy as np
import pytest

from moestro.routing.preference import preference


def test_experts_that_each_serve_one_domain() -> None:
    counts = np.array([[50.0, 0], [50, 0], [0, 40], [0, 60]])
    found = preference(["a", "a", "b", "b"], counts)
    assert found is not None
    assert found.information_raw == pytest.approx(math.log(2))
    assert found.lift.tolist() == [[2, 0], [0, 2]]
    assert found.favourites("a") == [(0, 2.0)]


def test_domains_that_are_served_alike() -> None:
    found = preference(["a", "a", "b", "b"], np.full((4, 3), 10.0))
    assert found is not None
    assert found.information_raw == pytest.approx(0, abs=1e-12)
    assert found.information == 0
    assert found.lift == pytest.approx(np.ones((2, 3)))
    assert found.favourites("b") == []


@pytest.mark.parametrize("clump", [1, 10])
def test_chance_is_taken_off(clump: int) -> None:
    """All domains draw from the same load, tokens in clumps: without a correction they seem to
    differ, and more so the longer the clumps are."""
    generator = np.random.default_rng(clump)
    load = generator.dirichlet(np.full(64, 2.0))
    raw, corrected = [], []
    for _ in range(40):
        counts = clump * generator.multinomial(4000 // clump, load, size=32).astype(float)
        found = preference([f"d{n % 8}" for n in range(32)], counts)
        assert found is not None
        assert found.information is not None
        raw.append(found.information_raw)
        corrected.append(found.information)
    expected = clump * 7 * 63 / (2 * 32 * 4000)
    assert np.mean(raw) == pytest.approx(expected, rel=0.15)
    assert np.mean(corrected) < 0.15 * expected


def test_a_real_preference_stays() -> None:
    generator = np.random.default_rng(9)
    loads = generator.dirichlet(np.full(32, 1.0), size=4)
    mean = loads.mean(axis=0)
    truth = float((loads * np.log(loads / mean)).sum() / 4)
    counts = np.stack([generator.multinomial(3000, loads[n % 4]) for n in range(24)]).astype(float)
    found = preference([f"d{n % 4}" for n in range(24)], counts)
    assert found is not None
    assert found.information == pytest.approx(truth, rel=0.05)


def test_one_domain_has_nothing_to_prefer() -> None:
    assert preference(["a", "a"], np.ones((2, 3))) is None
    assert preference(["a", "b"], np.array([[1.0, 1], [0, 0]])) is None


def test_without_a_second_group_chance_is_unknown() -> None:
    found = preference(["a", "b"], np.array([[9.0, 1, 0], [1, 9, 0]]))
    assert found is not None
    assert found.information is None
    assert np.isnan(found.lift[:, 2]).all(), "never selected at all"
    assert found.favourites("a") == [(0, pytest.approx(1.8))]
