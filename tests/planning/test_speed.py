from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moestro.model import ModelSpec, read_model
from moestro.planning import Settings
from moestro.planning.speed import Passes
from moestro.planning.work import Pass
from tests.planning.kernel_rates import machine
from tests.shapes import PUBLISHED, write_header

RATES = {"CPU": machine("F32", "Q4_K", "Q6_K")}
SETTINGS = Settings(context=8192, parallel=1, threads=2)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path: Path = tmp_path_factory.mktemp("headers") / "moe.gguf"
    return read_model(write_header(PUBLISHED["Qwen3-30B-A3B"](), path, vocab_tokens=300))


@pytest.fixture
def passes(moe: ModelSpec) -> Passes:
    return Passes(moe, SETTINGS, RATES)


def test_a_step_is_the_sum_of_its_parts(passes: Passes) -> None:
    step = passes.decode(1000, 1)
    assert step.seconds == pytest.approx(sum(step.by_kind.values()))
    assert not step.unknown
    assert {"experts", "dense", "head", "router", "attention", "sampling"} <= set(step.by_kind)


def test_experts_of_one_token_are_their_weights_at_the_measured_rate(
    passes: Passes, moe: ModelSpec
) -> None:
    used = sum(t.elements for t in moe.tensors if "_exps." in t.name) * 8 // 128
    assert passes.decode(0, 1).by_kind["experts"] == pytest.approx(used * 1e-10)


def test_a_deeper_cache_costs_attention_only(passes: Passes) -> None:
    near, far = passes.decode(100, 1), passes.decode(8000, 1)
    for kind, seconds in near.by_kind.items():
        if kind in ("attention", "mask"):
            assert far.by_kind[kind] > seconds * 10
        else:
            assert far.by_kind[kind] == pytest.approx(seconds)


def test_streams_together_are_faster_than_one_but_not_as_many_times(
    passes: Passes,
) -> None:
    one, four = (passes.decode(100, streams).seconds for streams in (1, 4))
    assert one < four < 4 * one


def test_a_prompt_is_read_in_ubatches(moe: ModelSpec) -> None:
    passes = Passes(moe, replace(SETTINGS, ubatch=256), RATES)
    parts = [Pass(256, 1, 0, 0), Pass(256, 1, 256, 0), Pass(88, 1, 512, 1)]
    expected = sum(passes.cost(part).seconds for part in parts)
    assert passes.prompt_seconds(600) == pytest.approx(expected)


def test_what_was_not_measured_is_named(moe: ModelSpec) -> None:
    passes = Passes(moe, SETTINGS, {"CPU": machine("F32", "Q4_K")})
    assert passes.decode(0, 1).unknown == {"experts", "head", "dense"}
