"""Speeds from makers' figures: what follows from what, and what stays unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moestro.hardware import Bandwidth, Inventory, hardware_named
from moestro.model import ModelSpec, read_model
from moestro.planning.placement import HOST, place
from moestro.planning.pricing import seconds_of
from moestro.planning.roofline import (
    ASSUMED,
    CACHE_BYTES,
    Where,
    assumed_range,
    assumed_rates,
    gpu_efficiency,
)
from moestro.planning.settings import Settings
from moestro.planning.transfer import (
    CROSSING_SECONDS,
    OFFLOAD_TOKENS,
    computing_device,
    copied_bytes,
    crossing_seconds,
    offload_seconds,
)
from moestro.planning.work import Pass, Product, operations
from tests.shapes import PUBLISHED, write_header

ALL = 99


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder = tmp_path_factory.mktemp("shapes")
    found = {}
    for name in (
        "Qwen3-30B-A3B", "Qwen3.6-35B-A3B", "gpt-oss-20b", "DeepSeek-V2-Lite", "LFM2-8B-A1B",
        "Qwen3-0.6B",
    ):  # fmt: skip
        path = folder / f"{name}.gguf"
        write_header(PUBLISHED[name](), path)
        found[name] = read_model(path)
    return found


@pytest.fixture(scope="module")
def moe(models: dict[str, ModelSpec]) -> ModelSpec:
    return models["Qwen3-30B-A3B"]


def settings_of(inventory: Inventory, on_host: int = 0) -> Settings:
    return Settings(
        context=4096,
        parallel=1,
        threads=8,
        gpu_layers=None if inventory.gpus else 0,
        cpu_expert_layers=on_host,
    )


def seconds(model: ModelSpec, inventory: Inventory, tokens: int, on_host: int = 0) -> float:
    """One pass, with everything that moves."""
    rates = assumed_rates(inventory, model)
    assert rates is not None
    settings = settings_of(inventory, on_host)
    placement = place(model, settings, [gpu.memory_bytes or 0 for gpu in inventory.gpus])
    total = crossing_seconds(model, placement, tokens)
    copy = offload_seconds(model, placement, inventory, tokens)
    assert copy is not None
    for operation in operations(
        model, Pass(tokens), computing_device(placement, tokens, offloads=True)
    ):
        took = seconds_of(operation, rates[operation.device], 1.0)
        assert took is not None, operation
        total += took
    return total + copy


def with_bandwidth(inventory: Inventory, factor: float) -> Inventory:
    gpu = inventory.gpus[0]
    assert gpu.bandwidth is not None
    faster = Bandwidth(gpu.bandwidth.bytes_per_second * factor, "catalogue")
    return replace(inventory, gpus=(replace(gpu, bandwidth=faster),))


class TestRates:
    @pytest.mark.parametrize("hardware", ["rtx-4090", "h200", "m2-ultra", "gb10", "rx-7900-xtx"])
    @pytest.mark.parametrize("on_host", [0, ALL])
    def test_every_operation_of_every_kind_of_model_has_a_price(
        self, models: dict[str, ModelSpec], hardware: str, on_host: int
    ) -> None:
        inventory = hardware_named(hardware)
        for model in models.values():
            assert seconds(model, inventory, 1, on_host) > 0
            assert seconds(model, inventory, 256, on_host) > 0

    def test_every_pair_of_cache_types_has_a_rate(self, moe: ModelSpec) -> None:
        rates = assumed_rates(hardware_named("rtx-4090"), moe)
        assert rates is not None
        pairs = {(item.type_k, item.type_v) for item in rates["GPU0"].attention}
        assert pairs == {(k, v) for k in CACHE_BYTES for v in CACHE_BYTES}

    def test_a_device_each_and_all_of_them_assumed(self, moe: ModelSpec) -> None:
        rates = assumed_rates(hardware_named("2 x rtx-4090, 64 GiB DDR5-5600 dual channel"), moe)
        assert rates is not None
        assert set(rates) == {HOST, "GPU0", "GPU1"}
        assert {item.measured_at for item in rates.values()} == {ASSUMED}

    def test_no_rates_without_the_bandwidth_of_a_gpu(self, moe: ModelSpec) -> None:
        inventory = hardware_named("rtx-4090")
        unknown = replace(inventory, gpus=(replace(inventory.gpus[0], bandwidth=None),))
        assert assumed_rates(unknown, moe) is None

    def test_no_rates_without_the_bandwidth_of_the_host(self, moe: ModelSpec) -> None:
        inventory = hardware_named("rtx-4090")
        unknown = replace(inventory, memory=replace(inventory.memory, bandwidth=None))
        assert assumed_rates(unknown, moe) is None

    def test_a_measured_bandwidth_is_taken_as_it_is(self, moe: ModelSpec) -> None:
        inventory = hardware_named("rtx-4090")
        gpu = inventory.gpus[0]
        assert gpu.bandwidth is not None
        measured = replace(gpu, bandwidth=Bandwidth(gpu.bandwidth.bytes_per_second, "measured"))
        faster = seconds(moe, replace(inventory, gpus=(measured,)), 1)
        assert faster < seconds(moe, inventory, 1)

    def test_kinds_of_gpus_differ(self) -> None:
        names = ("rtx-4090", "rtx-pro-6000", "h200", "m2-ultra", "rx-7900-xtx")
        kinds = [gpu_efficiency(hardware_named(name).gpus[0]) for name in names]
        assert len(set(kinds)) == len(names)

    def test_starts_of_products_add_up_to_one_start_for_each(self, moe: ModelSpec) -> None:
        """With memory and arithmetic that cost nothing, only the starts are left."""
        inventory = with_bandwidth(hardware_named("rtx-4090"), 1e6)
        gpu = replace(inventory.gpus[0], tflops_f16=1e12)
        rates = assumed_rates(replace(inventory, gpus=(gpu,)), moe)
        assert rates is not None
        found = [
            item for item in operations(moe, Pass(1), lambda _: "") if isinstance(item, Product)
        ]
        total = sum(seconds_of(item, rates["GPU0"], 1.0) or 0.0 for item in found)
        assert total == pytest.approx(len(found) * gpu_efficiency(gpu).launch, rel=1e-3)


class TestSpeed:
    def test_decoding_follows_the_bandwidth(self, moe: ModelSpec) -> None:
        inventory = hardware_named("rtx-4090")
        ratio = seconds(moe, inventory, 1) / seconds(moe, with_bandwidth(inventory, 2), 1)
        assert 1.15 < ratio < 2

    def test_reading_a_prompt_follows_the_arithmetic(self, models: dict[str, ModelSpec]) -> None:
        inventory = hardware_named("rtx-4090")
        gpu = inventory.gpus[0]
        assert gpu.tflops_f16 is not None
        faster = replace(inventory, gpus=(replace(gpu, tflops_f16=2 * gpu.tflops_f16),))
        model = models["Qwen3-0.6B"]
        assert 1.3 < seconds(model, inventory, 2048) / seconds(model, faster, 2048) <= 2

    def test_each_block_of_experts_on_the_host_makes_decoding_slower(self, moe: ModelSpec) -> None:
        inventory = hardware_named("rtx-4090")
        times = [seconds(moe, inventory, 1, on_host) for on_host in (0, 8, 24, 48)]
        assert times == sorted(times)
        assert times[-1] > 3 * times[0]

    def test_experts_on_the_host_follow_its_memory(self, moe: ModelSpec) -> None:
        slow = hardware_named("rtx-4090, 64 GiB DDR4-2133 dual channel, 16 cores")
        fast = hardware_named("rtx-4090, 64 GiB DDR5-6000 eight channel, 16 cores")
        assert seconds(moe, slow, 1, ALL) > 1.5 * seconds(moe, fast, 1, ALL)

    def test_a_4090_lies_where_people_find_it(self, models: dict[str, ModelSpec]) -> None:
        """205 tokens per second of Qwen3-30B-A3B and 222 of gpt-oss-20b were published."""
        inventory = hardware_named("rtx-4090")
        assert 150 < 1 / seconds(models["Qwen3-30B-A3B"], inventory, 1) < 300
        assert 150 < 1 / seconds(models["gpt-oss-20b"], inventory, 1) < 330

    @pytest.mark.parametrize("where", ["gpu", "mixed", "cpu"])
    @pytest.mark.parametrize("prefill", [False, True])
    def test_ranges_lie_around_the_forecast(self, where: Where, prefill: bool) -> None:
        low, high = assumed_range(prefill, where)
        assert 0.2 < low < 1 < high < 4


class TestTransfer:
    def test_large_batches_leave_the_host(self, moe: ModelSpec) -> None:
        settings = settings_of(hardware_named("rtx-4090"), ALL)
        placement = place(moe, settings, [24 * 2**30])
        expert = next(item for item in moe.tensors if "ffn_up_exps" in item.name)
        assert computing_device(placement, OFFLOAD_TOKENS - 1, offloads=True)(expert) == HOST
        assert computing_device(placement, OFFLOAD_TOKENS, offloads=True)(expert) == "GPU0"

    def test_without_a_gpu_nothing_leaves(self, moe: ModelSpec) -> None:
        inventory = hardware_named("cpu, 64 GiB DDR5-5600 dual channel, 8 cores")
        placement = place(moe, settings_of(inventory))
        where = computing_device(placement, 512, offloads=False)
        assert {where(item) for item in moe.tensors} == {HOST}
        assert offload_seconds(moe, placement, inventory, 512) == 0
        assert offload_seconds(moe, placement, inventory, 512) == 0

    def test_copies_are_of_the_experts_that_some_token_chose(self, moe: ModelSpec) -> None:
        settings = settings_of(hardware_named("rtx-4090"), ALL)
        placement = place(moe, settings, [24 * 2**30])
        experts = sum(item.size_bytes for item in moe.tensors if "_exps." in item.name)
        few = copied_bytes(moe, placement, OFFLOAD_TOKENS)
        assert copied_bytes(moe, placement, OFFLOAD_TOKENS - 1) == 0
        assert few == pytest.approx(experts * (1 - (1 - 8 / 128) ** OFFLOAD_TOKENS))
        assert copied_bytes(moe, placement, 4096) == pytest.approx(experts)

    def test_a_wider_link_copies_faster(self, moe: ModelSpec) -> None:
        times = []
        for lanes in (8, 16):
            inventory = hardware_named(f"rtx-4090, PCIe 4.0 x{lanes}")
            placement = place(moe, settings_of(inventory, ALL), [24 * 2**30])
            times.append(offload_seconds(moe, placement, inventory, 512))
        assert times[0] is not None
        assert times[1] is not None
        assert times[0] == pytest.approx(2 * times[1])

    def test_an_unknown_link_stays_unknown(self, moe: ModelSpec) -> None:
        inventory = hardware_named("rtx-4090")
        inventory = replace(inventory, gpus=(replace(inventory.gpus[0], link=None),))
        placement = place(moe, settings_of(inventory, ALL), [24 * 2**30])
        assert offload_seconds(moe, placement, inventory, 512) is None
        assert offload_seconds(moe, placement, inventory, 1) == 0

    def test_a_shared_memory_needs_no_link(self, moe: ModelSpec) -> None:
        inventory = hardware_named("m2-ultra")
        placement = place(moe, settings_of(inventory, ALL), [48 * 2**30])
        took = offload_seconds(moe, placement, inventory, 512)
        assert took is not None
        assert took > 0

    def test_two_changes_of_device_in_each_block_with_experts_on_the_host(
        self, moe: ModelSpec
    ) -> None:
        settings = settings_of(hardware_named("rtx-4090"), 10)
        placement = place(moe, settings, [24 * 2**30])
        assert crossing_seconds(moe, placement, 1) == pytest.approx(20 * CROSSING_SECONDS)
        assert crossing_seconds(moe, placement, OFFLOAD_TOKENS) == 0

    def test_two_gpus_hand_over_once(self, moe: ModelSpec) -> None:
        settings = settings_of(hardware_named("rtx-4090"))
        placement = place(moe, settings, [24 * 2**30] * 2)
        assert crossing_seconds(moe, placement, 1) == pytest.approx(CROSSING_SECONDS)
