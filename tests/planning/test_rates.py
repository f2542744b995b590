from __future__ import annotations

import json

import pytest

from moestro.planning.rates import Curve, KernelRates
from tests.planning.kernel_rates import attention_rates, machine, type_rates


@pytest.mark.parametrize(
    ("x", "y"),
    [(0.5, 10.0), (1, 10.0), (2, 15.0), (3, 20.0), (5, 22.0), (7, 24.0)],
)
def test_a_curve_is_linear_between_its_points_and_goes_on_beyond_them(x: float, y: float) -> None:
    assert Curve(((1, 10), (3, 20), (5, 22))).at(x) == pytest.approx(y)


def test_a_level_curve_does_not_go_on() -> None:
    assert Curve(((1, 10), (3, 20))).level(100) == 20


def test_a_falling_curve_does_not_go_below_zero() -> None:
    assert Curve(((1, 10), (2, 1))).at(50) == 0


def test_rates_survive_json() -> None:
    rates = machine("Q4_K", "F32")
    assert KernelRates.from_json(json.loads(json.dumps(rates.to_json()))) == rates


def test_a_newer_measurement_wins_and_the_rest_stays() -> None:
    known = machine("Q4_K", "F32", attention=(attention_rates(64), attention_rates(128)))
    newer = KernelRates(
        device="CPU", description="", threads=2, engine_version="1", measured_at="2027",
        types={"Q4_K": type_rates(5e-10)}, attention=(attention_rates(64, kind="Q8_0"),),
    )  # fmt: skip
    merged = known.merged(newer)
    assert merged.types["Q4_K"] == type_rates(5e-10)
    assert merged.types["F32"] == type_rates()
    assert len(merged.attention) == 3
    assert merged.small == known.small, "a measurement of types only has no small operations"
    assert (merged.engine_version, merged.measured_at) == ("1", "2027")


def test_weights_that_fit_the_cache_do_not_come_from_memory() -> None:
    rates = machine()
    assert rates.memory_share(1e5) == 0
    assert rates.memory_share(1e9) == 1
    shares = [rates.memory_share(size) for size in (1e6, 1e7, 5e7, 1e8)]
    assert shares == sorted(shares)


def test_a_disturbed_point_does_not_bring_weights_back_into_the_cache() -> None:
    rates = machine(knee=Curve(((1e6, 1e-10), (1e7, 3e-10), (1e8, 2e-10))))
    assert rates.memory_share(1e7) == rates.memory_share(1e8) == 1


def test_the_best_bandwidth_is_that_of_the_type_that_reads_fastest() -> None:
    rates = machine("Q4_K", knee=None)
    assert rates.best_bytes_per_second == pytest.approx(0.5 / 1e-10)
    assert machine(knee=None).best_bytes_per_second is None
