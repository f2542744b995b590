from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moestro.errors import ModelError
from moestro.routing.paired import NEAR_TIE, PairedRouting, PairedTally
from moestro.routing.sample import LayerSample
from moestro.routing.scores import GATINGS
from tests.routing.simulate import chosen_only, permuted, route

Pairs = list[tuple[LayerSample, LayerSample]]


def compared(pairs: Pairs, experts: int, used: int, layer: int = 0, **options) -> PairedRouting:
    tally = PairedTally(experts, used, "softmax", **options)
    for chunk, (reference, candidate) in enumerate(pairs):
        tally.add(layer, chunk, "ab"[chunk % 2], reference, candidate)
    return tally.result()


def noisy(generator, tokens: int, experts: int, used: int, noise: float, **options):
    logits = generator.normal(size=(tokens, experts)) * 2
    other = logits + noise * generator.normal(size=logits.shape)
    return route(logits, used, **options), route(other, used, **options)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12), st.data(),
    st.sampled_from(sorted(GATINGS)),
)  # fmt: skip
def test_a_model_agrees_with_itself_exactly(seed, tokens, experts, data, gating) -> None:
    used = data.draw(st.integers(1, experts))
    generator = np.random.default_rng(seed)
    tally = PairedTally(experts, used, gating)
    for chunk in range(3):
        one = route(3 * generator.normal(size=(tokens, experts)), used, gating)
        tally.add(4, chunk, "a", one, one)
        tally.add(9, chunk, "a", one, one)
    found = tally.result()
    assert found.overlap.value == found.overlap.low == found.overlap.high == 1
    assert found.gate_mass_overlap is not None
    assert found.gate_mass_overlap.value == 1
    assert found.router_kl is not None
    assert found.router_kl.value == found.router_kl.low == found.router_kl.high == 0
    assert found.drift_by_depth is not None
    assert found.drift_by_depth.value == 0
    for layer in found.layers:
        assert layer.load_shift == 0
        assert layer.effective_experts == layer.effective_experts_reference
        assert layer.effective_experts_ratio is not None
        assert layer.effective_experts_ratio.value == 1
        assert layer.dead_only_in_candidate == ()
    json.dumps(found.to_json(), allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.data(), st.floats(0, 3))
def test_bounds_and_names(seed, experts, data, noise) -> None:
    """Load can't move further than selections do; and what experts are called plays no part."""
    used = data.draw(st.integers(1, experts))
    generator = np.random.default_rng(seed)
    pairs = [noisy(generator, 20, experts, used, noise) for _ in range(2)]
    order = generator.permutation(experts)
    found = compared(pairs, experts, used)
    renamed = compared([(permuted(a, order), permuted(b, order)) for a, b in pairs], experts, used)
    layer, other = found.layers[0], renamed.layers[0]
    assert 0 <= layer.overlap.value <= 1
    assert layer.gate_mass_overlap is not None
    assert 0 <= layer.gate_mass_overlap.value <= 1
    assert layer.router_kl is not None
    assert layer.router_kl.value >= 0
    assert layer.load_shift <= 1 - layer.overlap.value + 1e-12
    for name in ("overlap", "gate_mass_overlap", "router_kl"):
        assert getattr(layer, name).value == pytest.approx(getattr(other, name).value)
    assert layer.load_shift == pytest.approx(other.load_shift)
    assert layer.max_load == pytest.approx(other.max_load)
    assert layer.near_tie_share == other.near_tie_share


def test_by_hand() -> None:
    before = replace(
        chosen_only([[0, 1], [2, 3]], 4), weights=np.array([[3.0, 1.0], [1.0, 1.0]], np.float32)
    )
    after = replace(
        chosen_only([[1, 2], [3, 2]], 4), weights=np.array([[0.5, 0.5], [0.2, 0.6]], np.float32)
    )
    found = compared([(before, after)], 4, 2).layers[0]
    assert found.overlap.value == pytest.approx((1 / 2 + 2 / 2) / 2)
    # First token: expert 1 has ¼ against ½. Second: ½, ½ against 3 → ¼ and 2 → ¾.
    assert found.gate_mass_overlap is not None
    assert found.gate_mass_overlap.value == pytest.approx((0.25 + 0.75) / 2)
    assert found.load_reference == pytest.approx([0.25, 0.25, 0.25, 0.25])
    assert found.load == pytest.approx([0, 0.25, 0.5, 0.25])
    assert found.load_shift == pytest.approx(0.25)
    assert found.max_load == pytest.approx(2)
    assert found.max_load_reference == pytest.approx(1)
    assert found.effective_experts == pytest.approx(2**1.5)
    assert found.router_kl is None
    assert found.overlap_clear is None


def test_router_kl_is_measured_from_the_reference() -> None:
    even, leaning = route(np.log([[0.5, 0.5]]), 1), route(np.log([[0.75, 0.25]]), 1)
    found = compared([(even, leaning)], 2, 1).router_kl
    assert found is not None
    assert found.value == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-6)


def test_routers_without_anything_in_common_overlap_by_chance() -> None:
    generator = np.random.default_rng(1)
    pairs = []
    for _ in range(20):
        two = [route(generator.normal(size=(200, 32)), 4) for _ in range(2)]
        pairs.append((two[0], two[1]))
    found = compared(pairs, 32, 4)
    assert found.chance_overlap == 4 / 32
    assert found.overlap.value == pytest.approx(found.chance_overlap, abs=0.01)
    assert found.overlap.low is not None
    assert found.overlap.high is not None
    assert found.overlap.low <= 4 / 32 <= found.overlap.high


def test_disjoint_choices_share_nothing() -> None:
    pair = chosen_only([[0, 1], [1, 0]], 4), chosen_only([[2, 3], [3, 2]], 4)
    found = compared([pair], 4, 2)
    assert found.overlap.value == 0
    assert found.gate_mass_overlap is not None
    assert found.gate_mass_overlap.value == 0
    assert found.layers[0].load_shift == 1


@pytest.mark.parametrize("fewer_in_reference", [False, True])
def test_another_number_of_experts_is_no_agreement(fewer_in_reference: bool) -> None:
    logits = np.random.default_rng(2).normal(size=(50, 8))
    one, two = route(logits, 1), route(logits, 2)
    pair, used, other = ((one, two), 1, 2) if fewer_in_reference else ((two, one), 2, 1)
    found = compared([pair], 8, used, used_candidate=other)
    assert found.overlap.value == pytest.approx(0.5)
    assert found.gate_mass_overlap is not None
    assert found.gate_mass_overlap.value < 1
    assert found.reference.used == used
    assert found.candidate.used == other
    assert found.chance_overlap == 1 / 8


def test_another_gating_shows_in_the_routers_though_they_choose_alike() -> None:
    logits = 3 * np.random.default_rng(3).normal(size=(64, 8))
    tally = PairedTally(8, 2, "softmax", "sigmoid")
    tally.add(0, 0, "a", route(logits, 2), route(logits, 2, "sigmoid"))
    found = tally.result()
    assert found.overlap.value == 1
    assert found.router_kl is not None
    assert found.router_kl.value > 0.1
    assert found.gate_mass_overlap is not None
    assert found.gate_mass_overlap.value < 0.95


def test_near_ties_are_told_from_drift() -> None:
    """An untrained router hardly prefers one expert to another, so noise decides; a trained one
    that loses as many selections has really drifted."""
    generator = np.random.default_rng(4)

    def pair(scale: float, noise: float, experts: int = 8, used: int = 2):
        logits = scale * generator.normal(size=(512, experts))
        other = logits + noise * generator.normal(size=logits.shape)
        return route(logits, used), route(other, used)

    coin = compared([pair(0.02, 0.01) for _ in range(8)], 8, 2)
    drift = compared([pair(2.0, 1.0) for _ in range(8)], 8, 2)
    assert coin.overlap.value == pytest.approx(drift.overlap.value, abs=0.03)
    assert coin.near_tie_share is not None
    assert coin.near_tie_share > 0.97
    assert drift.near_tie_share is not None
    assert drift.near_tie_share < 0.1
    assert drift.overlap_clear is not None
    assert drift.overlap_clear.value < 0.85
    steady = compared([pair(2.0, 0.004, 64, 8) for _ in range(8)], 64, 8)
    assert steady.overlap_clear is not None
    assert steady.overlap_clear.value == 1, f"noise far below {NEAR_TIE} decides ties only"
    assert steady.overlap_near_ties is not None
    assert steady.overlap_near_ties.value < 1


def test_ties_are_unknown_where_a_bias_takes_part_in_the_choice() -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(256, 8))
    bias = np.linspace(0, 0.2, 8)
    one = route(logits, 2, "sigmoid", bias=bias)
    plain = route(logits, 2, "sigmoid")
    tally = PairedTally(8, 2, "sigmoid")
    tally.add(0, 0, "a", one, one)
    tally.add(1, 0, "a", plain, plain)
    found = tally.result()
    biased, unbiased = found.layers
    assert biased.overlap_clear is None
    assert biased.overlap_near_ties is None
    assert biased.near_tie_share is None
    assert unbiased.overlap_clear is not None
    assert found.near_tie_share == unbiased.near_tie_share


def test_logits_kept_in_16_bits_still_explain_the_choice() -> None:
    generator = np.random.default_rng(6)
    reference, candidate = noisy(generator, 4096, 64, 8, 0.0)
    stored = replace(reference, logits=reference.logits.astype(np.float16))
    found = compared([(stored, candidate)], 64, 8)
    assert found.near_tie_share is not None
    assert found.router_kl is not None
    assert 0 < found.router_kl.value < 1e-5


def test_drift_by_depth_is_what_the_layers_lose_from_first_to_last() -> None:
    """Layer l of 0, 2, 4 … 8 replaces each selection with probability 0.1 + 0.05 · l."""
    generator = np.random.default_rng(7)
    tally = PairedTally(16, 1, "softmax")
    for chunk in range(24):
        for layer in range(0, 10, 2):
            chosen = generator.integers(0, 8, size=(300, 1))
            moved = generator.random((300, 1)) < 0.1 + 0.05 * layer
            pair = chosen_only(chosen, 16), chosen_only(np.where(moved, chosen + 8, chosen), 16)
            tally.add(layer, chunk, "a", *pair)
    found = tally.result()
    assert found.drift_by_depth is not None
    assert found.drift_by_depth.value == pytest.approx(0.4, abs=0.03)
    assert found.drift_by_depth.low is not None
    assert found.drift_by_depth.high is not None
    assert 0.35 < found.drift_by_depth.low < 0.4 < found.drift_by_depth.high < 0.45
    assert found.worst_layer.layer == 8
    assert found.overlap.value == pytest.approx(0.7, abs=0.02)


def test_one_layer_has_no_depth() -> None:
    one = route(np.eye(8), 2)
    assert compared([(one, one)], 8, 2).drift_by_depth is None


def test_domains_are_told_apart() -> None:
    same, other = chosen_only([[0], [1]], 4), chosen_only([[2], [3]], 4)
    found = compared([(same, same), (same, other)] * 5, 4, 1)
    assert found.overlap_by_domain["a"].value == 1
    assert found.overlap_by_domain["b"].value == 0
    assert found.overlap.value == 0.5


def test_an_expert_that_the_candidate_lost() -> None:
    generator = np.random.default_rng(8)
    pairs = []
    for _ in range(10):
        logits = generator.normal(size=(200, 8))
        logits[:, 5] = -50
        other = logits.copy()
        other[:, 3] = -50
        pairs.append((route(logits, 2), route(other, 2)))
    layer = compared(pairs, 8, 2).layers[0]
    assert layer.dead_only_in_candidate == (3,), "5 is dead in both"
    assert layer.effective_experts_ratio is not None
    assert layer.effective_experts_ratio.high is not None
    assert layer.effective_experts_ratio.high < 0.9
    assert compared(pairs[:1], 8, 2).layers[0].dead_only_in_candidate == ()


def test_a_layer_may_cover_fewer_tokens_or_none() -> None:
    generator = np.random.default_rng(9)
    tally = PairedTally(8, 2, "softmax")
    for chunk in range(6):
        for layer, tokens in ((1, 64), (2, 20), (3, 0)):
            tally.add(layer, chunk, "a", *noisy(generator, tokens, 8, 2, 0.1))
    assert tally.tokens == 6 * 64
    found = tally.result()
    assert [layer.layer for layer in found.layers] == [1, 2]
    assert [layer.tokens for layer in found.layers] == [6 * 64, 6 * 20]
    weighted = sum(layer.tokens * layer.overlap.value for layer in found.layers) / (6 * 84)
    assert found.overlap.value == pytest.approx(weighted)


def test_nothing_added_is_said_so() -> None:
    tally = PairedTally(8, 2, "softmax")
    assert tally.tokens == 0
    with pytest.raises(ModelError) as caught:
        tally.result()
    assert caught.value.code == "routing-empty"


def test_samples_of_other_tokens_are_refused() -> None:
    generator = np.random.default_rng(10)
    one, two = noisy(generator, 32, 8, 2, 0.1)
    shorter = route(generator.normal(size=(31, 8)), 2)
    moved = replace(two, rows=two.rows + 1)
    for other in (shorter, moved):
        tally = PairedTally(8, 2, "softmax")
        with pytest.raises(ModelError, match="other tokens"):
            tally.add(0, 0, "a", one, other)
        assert tally.tokens == 0


def test_what_is_not_finite_neither_crashes_nor_counts() -> None:
    generator = np.random.default_rng(11)
    one, two = noisy(generator, 64, 8, 2, 0.05)
    logits, weights = two.logits.copy(), two.weights.copy()
    logits[3], weights[7, 1] = np.nan, np.inf
    found = compared([(one, replace(two, logits=logits, weights=weights))] * 6, 8, 2)
    clean = compared([(one, two)] * 6, 8, 2)
    assert found.candidate.broken == 12
    assert found.reference.broken == 0
    assert found.router_kl is not None
    assert math.isfinite(found.router_kl.value)
    assert found.overlap == clean.overlap
    assert found.gate_mass_overlap is not None
    assert clean.gate_mass_overlap is not None
    # A token whose weights are no numbers in one model agrees with nothing.
    assert found.gate_mass_overlap.value < clean.gate_mass_overlap.value
    json.dumps(found.to_json(), allow_nan=False)


def test_memory_does_not_grow_with_the_text() -> None:
    one = chosen_only([[0], [1]], 4)
    tally = PairedTally(4, 1, "softmax")
    for chunk in range(1000):
        tally.add(0, chunk, "ab"[chunk % 2], one, one)
    assert tally.tokens == 2000
    assert all(len(sums.matrix(0)) <= 64 for sums in tally.kept)


def test_the_json_that_programs_rely_on() -> None:
    generator = np.random.default_rng(12)
    found = compared([noisy(generator, 64, 8, 2, 0.3) for _ in range(8)], 8, 2, layer=3)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["overlap"] == found.overlap.value
    assert data["intervals"]["overlap"] == [found.overlap.low, found.overlap.high]
    (layer,) = data["layers"]
    asked = {
        "layer", "overlap", "router_kl", "effective_experts", "effective_experts_reference",
        "max_load",
    }  # fmt: skip
    assert asked <= set(layer)
    assert layer["layer"] == 3
    assert all(isinstance(layer[key], int | float) for key in asked)
