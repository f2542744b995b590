from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from moestro.verify.divergence import DivergenceTally, TokenDivergence, compare_logits
from moestro.verify.histogram import LogHistogram

Floats = NDArray[np.float64]


def random_logits(
    rows: int, vocabulary: int, seed: int, spread: float = 3.0
) -> NDArray[np.float32]:
    """Shaped like a language model's: a few likely tokens before a long tail."""
    generator = np.random.default_rng(seed)
    tail = np.log(np.arange(1, vocabulary + 1))
    logits = generator.normal(0, spread, (rows, vocabulary)) - generator.permuted(
        np.broadcast_to(tail, (rows, vocabulary)), axis=1
    )
    return logits.astype(np.float32)


def noisy(logits: NDArray[np.float32], scale: float, seed: int = 1) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(0, scale, logits.shape)
    return (logits + noise).astype(np.float32)


def in_float64(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], targets: NDArray[np.int32]
) -> tuple[Floats, Floats, Floats]:
    def log_softmax(logits: NDArray[np.float32]) -> Floats:
        wide = logits.astype(np.float64)
        wide -= wide.max(axis=1, keepdims=True)
        result: Floats = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
        return result

    log_p, log_q = log_softmax(reference), log_softmax(candidate)
    each = np.arange(len(targets))
    kld = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return kld, -log_p[each, targets], -log_q[each, targets]


def test_a_divergence_computed_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = ½·ln 2 + 0 − ¼·ln 2 = ¼·ln 2.
    reference = np.log(np.array([[2.0, 1, 1]], np.float32))
    candidate = np.log(np.array([[1.0, 1, 2]], np.float32)) + np.float32(7)
    found = compare_logits(reference, candidate, np.array([0], np.int32))
    assert found.kld[0] == pytest.approx(math.log(2) / 4, rel=1e-6)
    assert found.nll_reference[0] == pytest.approx(math.log(2), rel=1e-6)
    assert found.nll_candidate[0] == pytest.approx(math.log(4), rel=1e-6)
    assert not found.same_top[0]


@pytest.mark.parametrize("vocabulary", [2, 300, 5000, 150_000])
def test_a_model_does_not_diverge_from_itself(vocabulary: int) -> None:
    logits = random_logits(5, vocabulary, seed=3)
    found = compare_logits(logits, logits.copy(), np.zeros(5, np.int32))
    assert not found.kld.any()
    assert found.same_top.all()
    assert (found.nll_reference == found.nll_candidate).all()


@pytest.mark.parametrize("vocabulary", [7, 1000, 33_000, 140_000])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_sums_in_float32_agree_with_float64(vocabulary: int, scale: float, spread: float) -> None:
    rows = 40 if vocabulary < 10_000 else 4
    reference = random_logits(rows, vocabulary, seed=5, spread=spread)
    candidate = noisy(reference, scale)
    targets = np.random.default_rng(0).integers(0, vocabulary, rows).astype(np.int32)
    found = compare_logits(reference, candidate, targets)
    kld, nll_reference, nll_candidate = in_float64(reference, candidate, targets)
    # Divergences at the smallest scale are of the order of 5e-7.
    np.testing.assert_allclose(found.kld, kld, rtol=1e-4, atol=1.5e-7)
    np.testing.assert_allclose(found.nll_reference, nll_reference, atol=5e-7)
    np.testing.assert_allclose(found.nll_candidate, nll_candidate, atol=5e-7)


def test_tiny_divergences_are_not_lost_to_rounding() -> None:
    reference = random_logits(300, 4000, seed=8)
    candidate = noisy(reference, 1e-3)
    targets = np.zeros(300, np.int32)
    exact, _, _ = in_float64(reference, candidate, targets)
    assert exact.mean() < 1e-6
    assert compare_logits(reference, candidate, targets).kld.mean() == pytest.approx(
        exact.mean(), rel=0.005
    )


def test_adding_a_constant_to_all_logits_changes_nothing() -> None:
    reference = random_logits(6, 3000, seed=2)
    candidate = noisy(reference, 0.1)
    targets = np.arange(6, dtype=np.int32)
    plain = compare_logits(reference, candidate, targets)
    moved = compare_logits(reference, candidate + np.float32(16), targets)
    np.testing.assert_allclose(moved.kld, plain.kld, rtol=1e-3)
    assert (moved.same_top == plain.same_top).all()


def test_the_first_of_equal_logits_is_the_top() -> None:
    reference = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], np.float32)
    candidate = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]], np.float32)
    found = compare_logits(reference, candidate, np.zeros(2, np.int32))
    assert found.same_top.tolist() == [True, False]


def test_tokens_that_are_ruled_out_are_no_fault() -> None:
    logits = random_logits(2, 50, seed=1)
    logits[:, 7] = np.finfo(np.float32).min
    candidate = noisy(logits, 0.1)
    candidate[:, 7] = np.finfo(np.float32).min
    found = compare_logits(logits, candidate, np.zeros(2, np.int32))
    without = np.delete(logits, 7, axis=1), np.delete(candidate, 7, axis=1)
    exact, _, _ = in_float64(*without, np.zeros(2, np.int32))
    np.testing.assert_allclose(found.kld, exact, rtol=1e-5)


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["reference", "candidate", "both"])
def test_logits_that_are_no_numbers_are_marked_and_told_apart(fault: float, where: str) -> None:
    reference = random_logits(4, 2000, seed=4)
    candidate = noisy(reference, 0.1)
    targets = np.zeros(4, np.int32)
    sound = compare_logits(reference, candidate, targets)
    for logits, name in ((reference, "reference"), (candidate, "candidate")):
        if where in (name, "both"):
            logits[2, 1234] = fault
    found = compare_logits(reference, candidate, targets)
    assert found.finite.tolist() == [True, True, False, True]
    assert not found.same_top[2]
    assert bool(np.isnan(found.nll_reference[2])) is (where != "candidate")
    assert bool(np.isnan(found.nll_candidate[2])) is (where != "reference")
    np.testing.assert_array_equal(found.kld[[0, 1, 3]], sound.kld[[0, 1, 3]])


def test_what_does_not_belong_together_is_refused() -> None:
    logits = np.zeros((3, 10), np.float32)
    with pytest.raises(ValueError, match="logits"):
        compare_logits(logits, logits[:, :9], np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="targets"):
        compare_logits(logits, logits, np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="vocabulary"):
        compare_logits(logits, logits, np.array([0, 1, 10], np.int32))
    assert len(compare_logits(logits[:0], logits[:0], np.zeros(0, np.int32))) == 0


def tokens_of(kld: list[float], seed: int = 0) -> TokenDivergence:
    generator = np.random.default_rng(seed)
    values = np.array(kld)
    reference = generator.uniform(1, 4, len(kld))
    return TokenDivergence(values, reference, reference + values, values < 0.1)


def test_figures_of_a_whole_text_computed_by_hand() -> None:
    tally = DivergenceTally()
    one = TokenDivergence(
        kld=np.array([0.1, 0.3]),
        nll_reference=np.array([1.0, 2.0]),
        nll_candidate=np.array([1.5, 2.5]),
        same_top=np.array([True, False]),
    )
    other = TokenDivergence(
        kld=np.array([0.2, np.nan]),
        nll_reference=np.array([3.0, 9.0]),
        nll_candidate=np.array([3.5, np.nan]),
        same_top=np.array([True, False]),
    )
    tally.add(0, "prose", one)
    tally.add(1, "code", other)
    found = tally.result()
    assert (found.tokens, found.not_finite) == (3, 1)
    assert (found.not_finite_reference, found.not_finite_candidate) == (0, 1)
    assert found.kld_mean is not None
    assert found.kld_mean.value == pytest.approx(0.2)
    assert found.kld_median == pytest.approx(0.2, rel=0.01)
    assert found.kld_max == 0.3
    assert found.top1_agreement is not None
    assert found.top1_agreement.value == pytest.approx(2 / 3)
    assert found.perplexity_reference == pytest.approx(math.exp(2))
    assert found.perplexity == pytest.approx(math.exp(2.5))
    assert found.perplexity_ratio is not None
    assert found.perplexity_ratio.value == pytest.approx(math.exp(0.5))
    assert found.by_domain["code"].tokens == 1
    assert found.by_domain["prose"].kld_mean == pytest.approx(0.2)
    assert found.by_domain["prose"].perplexity_reference == pytest.approx(math.exp(1.5))
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert stored["kld_mean"] == found.kld_mean.value
    assert stored["perplexity_ratio"] == found.perplexity_ratio.value
    assert sum(stored["histogram"]["counts"]) == 3


def test_intervals_hold_the_figures_and_know_of_pairing() -> None:
    tally = DivergenceTally()
    generator = np.random.default_rng(7)
    for chunk in range(200):  # more than there are groups
        reference = generator.gamma(2, 1.5, 32)
        kld = generator.gamma(1, 0.02, 32)
        tally.add(
            chunk,
            f"domain {chunk % 8}",
            TokenDivergence(kld, reference, reference + 0.01, kld < 0.05),
        )
    found = tally.result()
    assert found.tokens == 6400
    for interval in (found.kld_mean, found.top1_agreement, found.perplexity_ratio):
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= interval.value <= interval.high
    assert found.kld_mean is not None
    assert found.kld_mean.low is not None
    assert found.kld_mean.low < 0.02 < (found.kld_mean.high or 0)
    # Every token is worse by the same 0.01 nats, so the ratio is certain although the text varies.
    assert found.perplexity_ratio is not None
    assert found.perplexity_ratio.low == pytest.approx(math.exp(0.01), rel=1e-9)
    assert found.perplexity_ratio.high == pytest.approx(math.exp(0.01), rel=1e-9)


def test_the_order_of_chunks_makes_no_difference() -> None:
    parts = [(chunk, f"d{chunk % 3}", tokens_of([0.01 * chunk, 0.2], chunk)) for chunk in range(60)]
    forward, backward = DivergenceTally(), DivergenceTally()
    for part in parts:
        forward.add(*part)
    for part in reversed(parts):
        backward.add(*part)
    one, other = forward.result(), backward.result()
    assert one.kld_mean is not None
    assert other.kld_mean is not None
    assert one.kld_mean.value == pytest.approx(other.kld_mean.value)
    assert one.kld_mean.low == pytest.approx(other.kld_mean.low)


def test_without_a_finite_token_nothing_is_known() -> None:
    tally = DivergenceTally()
    assert tally.result().kld_mean is None
    nan = np.array([np.nan])
    tally.add(0, "prose", TokenDivergence(nan, nan, nan, np.array([False])))
    found = tally.result()
    assert (found.tokens, found.not_finite) == (0, 1)
    assert found.kld_mean is None
    assert found.kld_p99 is None
    assert found.perplexity is None
    assert found.by_domain == {}
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_quantiles_are_within_a_per_cent(share: float) -> None:
    values = np.random.default_rng(3).lognormal(-4, 2, 20_000)
    histogram = LogHistogram()
    for part in np.split(values, 10):
        histogram.add(part)
    exact = np.quantile(values, share)
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.01)


def test_quantiles_in_a_thin_tail_lie_between_its_values() -> None:
    values = np.array([0.001] * 97 + [0.1, 0.2, 1.0])
    histogram = LogHistogram()
    histogram.add(values)
    for share in (0.97, 0.975, 0.985, 0.99, 0.995, 1.0):
        exact = np.quantile(values, share)
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.01)
    assert histogram.greatest == values.max()


def test_zeros_and_values_beyond_the_scale_are_counted() -> None:
    histogram = LogHistogram()
    histogram.add(np.array([0.0, 0.0, 0.0, 1e-20, 5e6]))
    assert histogram.total == 5
    assert histogram.quantile(0.5) == 0
    assert histogram.quantile(1.0) == 5e6
    edges, counts = histogram.coarse()
    assert len(edges) == len(counts) + 1
    assert sum(counts) == 5
    all_zero = LogHistogram()
    all_zero.add(np.zeros(4))
    assert all_zero.quantile(0.99) == 0
    assert sum(all_zero.coarse()[1]) == 4
