from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from moestro.errors import ModelError
from moestro.routing.profile import RoutingTally
from moestro.routing.sample import LayerSample
from tests.routing.simulate import chosen_only, permuted, route


def profiled(samples: list[LayerSample], experts: int, used: int, domains: str = "a"):
    tally = RoutingTally(experts, used, "softmax")
    for number, given in enumerate(samples):
        tally.add(2, number, domains[number % len(domains)], given)
    return tally.profile().layers[0]


def test_loads_by_hand() -> None:
    found = profiled([chosen_only([[0, 1], [0, 2]], 4), chosen_only([[0, 1]], 4)], 4, 2)
    assert found.layer == 2
    assert found.tokens == 3
    assert found.load == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])
    assert found.max_load == pytest.approx(2)
    assert found.unseen.experts == (3,)
    assert found.dead == (), "three tokens prove nothing"
    assert found.top_weight is not None
    assert found.top_weight.value == 0.5
    assert found.router_entropy is None, "no logits were kept"


def test_weights_count_as_shares_whatever_they_are_scaled_by() -> None:
    given = replace(
        chosen_only([[0, 1], [2, 3], [0, 3]], 4),
        weights=np.array([[0.9, 0.1], [1.5, 0.5], [0.0, 0.0]], dtype=np.float32),
    )
    found = profiled([given], 4, 2).top_weight
    assert found is not None
    assert found.value == pytest.approx((0.9 + 0.75) / 2)


def test_router_entropy_by_hand() -> None:
    found = profiled([route(np.zeros((9, 4)), 1)], 4, 1).router_entropy
    assert found is not None
    assert found.value == pytest.approx(math.log(4))


def test_names_of_experts_do_not_matter() -> None:
    generator = np.random.default_rng(1)
    samples = [route(generator.normal(size=(64, 8)) + np.arange(8) / 4, 2) for _ in range(6)]
    order = generator.permutation(8)
    before = profiled(samples, 8, 2, "ab")
    after = profiled([permuted(given, order) for given in samples], 8, 2, "ab")
    assert after.load[order] == pytest.approx(before.load)
    for name in ("effective_experts", "evenness", "gini", "busiest_share", "max_load", "tokens"):
        assert getattr(after, name) == pytest.approx(getattr(before, name))
    assert before.preference is not None
    assert after.preference is not None
    assert after.preference.lift[:, order] == pytest.approx(before.preference.lift)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    given = route(np.zeros((17, 4)), 2)
    logits, weights = given.logits.copy(), given.weights.copy()
    logits[0, 1], logits[2, 3] = np.nan, np.inf
    weights[4, 0], weights[5] = np.nan, [np.inf, -np.inf]
    found = profiled([replace(given, logits=logits, weights=weights)], 4, 2)
    assert (found.broken_logits, found.broken_weights) == (2, 2)
    assert found.router_entropy is not None
    assert found.router_entropy.value == pytest.approx(math.log(4))
    assert found.top_weight is not None
    assert found.top_weight.value == pytest.approx(0.5)
    assert found.tokens == 17


@pytest.mark.parametrize(("tokens", "experts", "used"), [(1, 1, 1), (1, 8, 2), (3, 4, 4)])
def test_the_smallest_cases(tokens: int, experts: int, used: int) -> None:
    generator = np.random.default_rng(2)
    found = profiled([route(generator.normal(size=(tokens, experts)), used)], experts, used)
    assert found.load.sum() == pytest.approx(1)
    assert 1 <= found.effective_experts <= experts + 1e-9
    json.dumps(found.to_json(), allow_nan=False)


def test_no_tokens_are_no_layer() -> None:
    tally = RoutingTally(4, 2, "softmax")
    tally.add(0, 0, "a", route(np.zeros((0, 4)), 2))
    found = tally.profile()
    assert found.layers == ()
    assert found.tokens == 0
    assert found.to_json()["layers"] == []


def test_layers_keep_their_numbers_and_their_order() -> None:
    tally = RoutingTally(4, 2, "sigmoid")
    for layer in (7, 3):
        tally.add(layer, 0, "a", route(np.zeros((8, 4)), 2))
    assert [layer.layer for layer in tally.profile().layers] == [3, 7]


def test_a_dead_expert_is_found_in_enough_text_and_named() -> None:
    generator = np.random.default_rng(5)
    samples = []
    for _ in range(12):
        logits = generator.normal(size=(256, 8))
        logits[:, 6] = -100
        samples.append(route(logits, 2))
    found = profiled(samples, 8, 2)
    assert found.dead == (6,)
    assert found.to_json()["dead"] == [6]
    assert profiled(samples[:1], 8, 2).dead == ()


@pytest.mark.parametrize(("experts", "used"), [(4, 5), (4, 0), (0, 0), (10**9, 1)])
def test_a_router_that_cannot_be_is_refused(experts: int, used: int) -> None:
    with pytest.raises(ModelError):
        RoutingTally(experts, used, "softmax")


def test_json_is_plain() -> None:
    generator = np.random.default_rng(3)
    tally = RoutingTally(8, 2, "sqrt-softplus")
    for chunk in range(10):
        tally.add(1, chunk, "ab"[chunk % 2], route(generator.normal(size=(40, 8)), 2))
    text = json.dumps(tally.profile().to_json(), allow_nan=False)
    assert json.loads(text)["layers"][0]["preference"]["information"] >= 0
