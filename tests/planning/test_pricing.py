from __future__ import annotations

import pytest

from moestro.planning.pricing import attention_rates as nearest
from moestro.planning.pricing import rows_per_expert, seconds_of
from moestro.planning.rates import Curve
from moestro.planning.work import Attention, ExpertProduct, Product, Recurrent, Small
from tests.planning.kernel_rates import COLUMN, READ, attention_rates, machine, type_rates

RATES = machine("Q4_K")


@pytest.mark.parametrize(
    ("tokens", "used", "count"), [(1, 8, 128), (4, 2, 8), (512, 8, 256), (3, 4, 4)]
)
def test_rows_of_experts_under_uniform_routing(tokens: int, used: int, count: int) -> None:
    rows = rows_per_expert(tokens, used, count)
    share = 1 - (1 - used / count) ** tokens
    assert sum(chance for _, chance in rows) == pytest.approx(share, rel=1e-6)
    assert sum(row * chance for row, chance in rows) == pytest.approx(
        tokens * used / count, rel=1e-6
    )


def test_a_matrix_from_memory_and_from_the_cache() -> None:
    product = Product("dense", "CPU", "Q4_K", 4096, 4096, 1)
    cold = seconds_of(product, RATES, 1.0)
    assert cold is not None
    assert cold == pytest.approx(4096 * 4096 * READ)
    assert seconds_of(product, RATES, 0.0) == pytest.approx(cold / 2)


def test_many_columns_use_weights_so_often_that_their_place_does_not_matter() -> None:
    product = Product("dense", "CPU", "Q4_K", 4096, 4096, 512)
    expected = 4096 * 4096 * (READ + 511 * COLUMN)
    assert seconds_of(product, RATES, 0.0) == pytest.approx(expected)
    assert seconds_of(product, RATES, 1.0) == pytest.approx(expected)


def test_small_matrices_have_a_rate_of_their_own() -> None:
    slow = type_rates()
    slow = type(slow)(
        slow.dense, slow.dense_cached, Curve(((1, 9e-10), (512, 9e-9))), slow.experts,
        slow.experts_cached, 0.5, False,
    )  # fmt: skip
    rates = machine(types={"Q4_K": slow})
    sizes = [(512, 512), (1024, 1024), (2048, 2048), (8192, 2048)]
    per_element = []
    for row, rows in sizes:
        seconds = seconds_of(Product("dense", "CPU", "Q4_K", row, rows, 1), rates, 1.0)
        assert seconds is not None
        per_element.append(seconds / (row * rows))
    assert per_element == pytest.approx([9e-10, 5e-10, 1e-10, 1e-10])


def test_one_token_pays_for_the_experts_it_uses() -> None:
    product = ExpertProduct("experts", "CPU", "Q4_K", 2048, 768, 128, 8, 1)
    assert seconds_of(product, RATES, 1.0) == pytest.approx(8 * 2048 * 768 * READ)


def test_more_tokens_touch_more_experts_but_fewer_than_they_choose() -> None:
    one = seconds_of(ExpertProduct("experts", "CPU", "Q4_K", 2048, 768, 32, 8, 1), RATES, 1.0)
    four = seconds_of(ExpertProduct("experts", "CPU", "Q4_K", 2048, 768, 32, 8, 4), RATES, 1.0)
    assert one is not None
    assert four is not None
    assert 2 * one < four < 4 * one


@pytest.mark.parametrize(
    ("queries", "streams", "rate"), [(1, 1, 4e-10), (1, 4, 3e-10), (3, 1, 2e-10), (256, 1, 1e-10)]
)
def test_attention_by_what_it_looks_like(queries: int, streams: int, rate: float) -> None:
    attention = Attention("CPU", 8192, 128, 4, False, queries, streams, 1000, None, "F16", "F16")
    cells = 1000 + (queries + 1) / 2
    expected = 8192 * queries * streams * cells * rate
    assert seconds_of(attention, RATES, 1.0) == pytest.approx(expected)


def test_attention_falls_back_on_the_nearest_heads() -> None:
    known = machine(
        attention=(attention_rates(64, 64), attention_rates(256, 256), attention_rates(576, 512),
                   attention_rates(64, 64, "Q8_0"))
    )  # fmt: skip
    found = nearest(known, 192, False, "F16", "F16")
    assert found is not None
    assert found.key == 256
    found = nearest(known, 192, False, "Q8_0", "Q8_0")
    assert found is not None
    assert (found.key, found.type_k) == (64, "Q8_0")
    found = nearest(known, 576, True, "F16", "F16")
    assert found is not None
    assert found.value == 512


def test_recurrent_layers_cost_by_state_and_channel() -> None:
    scan = Recurrent("CPU", "gated_delta_net", 1000, 100, 2, 3)
    assert seconds_of(scan, RATES, 1.0) == pytest.approx(6 * (1000 + 100) * 1e-9)


def test_small_work_costs_by_operation_and_value() -> None:
    assert seconds_of(Small("CPU", "add", 1000, 3), RATES, 1.0) == pytest.approx(3 * (1e-6 + 1e-6))


def test_what_was_not_measured_has_no_price() -> None:
    assert seconds_of(Product("dense", "CPU", "IQ1_S", 2048, 2048, 1), RATES, 1.0) is None
    assert (
        seconds_of(ExpertProduct("experts", "CPU", "IQ1_S", 256, 256, 8, 2, 1), RATES, 1.0) is None
    )
    attention = Attention("CPU", 8192, 128, 4, False, 1, 1, 1000, None, "F16", "F16")
    assert seconds_of(attention, machine(attention=()), 1.0) is None
    assert (
        seconds_of(Recurrent("CPU", "state_scan", 1, 1, 1, 1), machine(recurrent={}), 1.0) is None
    )
