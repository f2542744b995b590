from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from moestro.verify.sketch import KEPT_MASS, MOST_KEPT, Sketch, compare_sketch, sketch_logits
from moestro.verify.token_divergence import compare_logits
from tests.verify.test_divergence import noisy, random_logits


def targets_of(rows: int, vocabulary: int) -> NDArray[np.int32]:
    return np.random.default_rng(9).integers(0, vocabulary, rows).astype(np.int32)


def flat(rows: int, vocabulary: int, seed: int) -> NDArray[np.float32]:
    """So undecided that most of the mass lies beyond what is kept."""
    return np.random.default_rng(seed).normal(0, 1, (rows, vocabulary)).astype(np.float32)


def test_what_is_kept_is_what_the_distribution_says() -> None:
    # p = (1/2, 1/4, 1/8, 1/8).
    logits = np.log(np.array([[1.0, 4, 2, 1]], np.float32))
    sketch = sketch_logits(logits, np.array([2], np.int32), seed=0)
    assert sketch.ids.tolist() == [1, 2, 0, 3] or sketch.ids.tolist() == [1, 2, 3, 0]
    np.testing.assert_allclose(np.exp(sketch.log_p), [1 / 2, 1 / 4, 1 / 8, 1 / 8], rtol=1e-6)
    assert sketch.target_log_p[0] == pytest.approx(math.log(1 / 4), rel=1e-6)
    assert sketch.tail_log_mass[0] == -np.inf
    assert len(sketch.tail_ids) == 0
    assert sketch.top.tolist() == [1]


@pytest.mark.parametrize("vocabulary", [3, 700, 20_000])
def test_a_sketch_holds_the_likeliest_tokens_and_the_rest_of_the_mass(vocabulary: int) -> None:
    logits = np.concatenate(
        [
            random_logits(12, vocabulary, 1),
            flat(3, vocabulary, 2),
            random_logits(3, vocabulary, 3) * 9,
        ]
    )
    sketch = sketch_logits(logits, targets_of(18, vocabulary), seed=4)
    wide = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    wide /= wide.sum(axis=1, keepdims=True)
    begin = tail_begin = 0
    for row, (end, tail_end) in enumerate(zip(sketch.ends, sketch.tail_ends, strict=True)):
        ids, tail_ids = sketch.ids[begin:end], sketch.tail_ids[tail_begin:tail_end]
        kept = wide[row, ids]
        np.testing.assert_allclose(np.exp(sketch.log_p[begin:end]), kept, rtol=1e-5)
        assert ids[0] == logits[row].argmax() == sketch.top[row]
        assert (np.diff(kept) <= 0).all()
        assert len(ids) == MOST_KEPT or kept.sum() >= KEPT_MASS - 1e-6
        assert len(ids) == 1 or kept[:-1].sum() < KEPT_MASS
        assert kept.min() >= np.delete(wide[row], ids).max(initial=0)
        assert np.exp(sketch.tail_log_mass[row]) == pytest.approx(1 - kept.sum(), abs=1e-6)
        assert set(ids).isdisjoint(tail_ids)
        np.testing.assert_allclose(
            np.exp(sketch.tail_log_p[tail_begin:tail_end]), wide[row, tail_ids], rtol=1e-5
        )
        begin, tail_begin = int(end), int(tail_end)


def test_the_tail_is_drawn_in_proportion_to_its_mass() -> None:
    vocabulary, rows = 2000, 600
    row = flat(1, vocabulary, seed=6)
    sketch = sketch_logits(np.repeat(row, rows, axis=0), targets_of(rows, vocabulary), seed=1)
    tail = np.exp(row[0].astype(np.float64))
    tail[sketch.ids[: sketch.ends[0]]] = 0
    tail /= tail.sum()
    counts = np.bincount(sketch.tail_ids, minlength=vocabulary)
    expected = tail * counts.sum()
    often = expected > 20
    assert often.sum() > 100
    scores = (counts - expected)[often] / np.sqrt(expected[often])
    assert abs(scores.mean()) < 0.2
    assert scores.std() < 1.2
    assert not counts[tail == 0].any()


def test_the_same_seed_draws_the_same_tokens() -> None:
    logits, targets = flat(3, 3000, seed=1), targets_of(3, 3000)
    one, same, other = (sketch_logits(logits, targets, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.tail_ids, same.tail_ids)
    assert one.tail_ids.tolist() != other.tail_ids.tolist()


@pytest.mark.parametrize("vocabulary", [40, 5000])
def test_a_model_does_not_diverge_from_its_own_sketch(vocabulary: int) -> None:
    logits = np.concatenate([random_logits(10, vocabulary, 3), flat(10, vocabulary, 4)])
    targets = targets_of(20, vocabulary)
    found = compare_sketch(sketch_logits(logits, targets, seed=2), logits, targets)
    assert found.kld.max() < 1e-6
    assert found.same_top.all()
    np.testing.assert_allclose(found.nll_reference, found.nll_candidate, atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("kind", [random_logits, flat])
def test_the_mean_divergence_is_the_exact_one(kind: object, scale: float) -> None:
    assert callable(kind)
    rows, vocabulary = 256, 4000
    reference = kind(rows, vocabulary, seed=11)
    candidate = noisy(reference, scale)
    targets = targets_of(rows, vocabulary)
    exact = compare_logits(reference, candidate, targets)
    found = compare_sketch(sketch_logits(reference, targets, seed=0), candidate, targets)
    # Flat distributions are nearly all tail, far more than any language model's.
    bound = 0.03 if kind is flat else 0.01
    assert found.kld.mean() == pytest.approx(exact.kld.mean(), rel=bound)
    np.testing.assert_allclose(found.nll_reference, exact.nll_reference, atol=5e-6)
    np.testing.assert_allclose(found.nll_candidate, exact.nll_candidate, atol=1e-6)
    assert (found.same_top == exact.same_top).all()


def test_the_estimate_of_a_large_tail_is_unbiased() -> None:
    vocabulary = 3000
    reference, targets = flat(1, vocabulary, seed=2), targets_of(1, vocabulary)
    candidate = noisy(reference, 0.7)
    exact = compare_logits(reference, candidate, targets).kld[0]
    estimates = [
        compare_sketch(sketch_logits(reference, targets, seed), candidate, targets).kld[0]
        for seed in range(200)
    ]
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(exact, abs=4 * error)
    assert error < 0.01 * exact


def test_a_candidate_that_is_another_model_is_seen_as_such() -> None:
    reference, candidate = random_logits(200, 3000, 1), random_logits(200, 3000, 2)
    targets = targets_of(200, 3000)
    exact = compare_logits(reference, candidate, targets).kld.mean()
    found = compare_sketch(sketch_logits(reference, targets, 0), candidate, targets).kld.mean()
    assert exact > 3
    assert found == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_marked_and_told_apart(fault: float) -> None:
    reference = random_logits(5, 900, seed=1)
    candidate = noisy(reference, 0.1)
    targets = targets_of(5, 900)
    reference[1, 3] = fault
    candidate[4, 700] = fault
    sketch = sketch_logits(reference, targets, seed=0)
    assert sketch.top[1] == -1
    found = compare_sketch(sketch, candidate, targets)
    assert found.finite.tolist() == [True, False, True, True, False]
    assert np.isnan(found.nll_reference).tolist() == [False, True, False, False, False]
    assert np.isnan(found.nll_candidate).tolist() == [False, False, False, False, True]
    assert not found.same_top[[1, 4]].any()


def test_what_does_not_belong_together_is_refused() -> None:
    logits, targets = random_logits(4, 30, seed=1), targets_of(4, 30)
    sketch = sketch_logits(logits, targets, seed=0)
    assert isinstance(replace(sketch, vocabulary=31), Sketch)
    with pytest.raises(ValueError, match="against a sketch"):
        compare_sketch(replace(sketch, vocabulary=31), logits, targets)
    with pytest.raises(ValueError, match="against a sketch"):
        compare_sketch(sketch, logits[:3], targets[:3])
    with pytest.raises(ValueError, match="targets"):
        sketch_logits(logits, targets[:2], seed=0)
    empty = sketch_logits(logits[:0], targets[:0], seed=0)
    assert len(compare_sketch(empty, logits[:0], targets[:0])) == 0
