"""GPUs that are not there: what the engine puts where, and how much room it plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moestro.engine.llama_cpp.dry_run import DryRun, EngineMemory, memory_of
from moestro.engine.llama_cpp.virtual_device import VirtualDevice
from moestro.model import ModelSpec, Role, read_model
from moestro.planning.placement import is_routed_expert
from moestro.planning.settings import Settings
from moestro.units import GIB, MIB
from tests.shapes import PUBLISHED, write_header

SETTINGS = Settings(context=8192, parallel=1, threads=2)
ONE = (VirtualDevice("one", 24 * GIB, 23 * GIB),)
TWO = (VirtualDevice("one", 24 * GIB, 24 * GIB), VirtualDevice("two", 24 * GIB, 24 * GIB))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("moe") / "m.gguf"
    return read_model(write_header(PUBLISHED["Qwen3-30B-A3B"]().with_vocabulary(512), path))


@pytest.fixture(scope="module")
def leading_dense(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("dense") / "m.gguf"
    return read_model(write_header(PUBLISHED["GLM-4.5-Air"]().with_vocabulary(512), path))


def on(said: EngineMemory, device: str) -> int:
    return next((d.weights_bytes for d in said.devices if d.device == device), 0)


def graph(said: EngineMemory, device: str) -> int:
    return next(d.compute_bytes for d in said.devices if d.device == device)


def test_everything_but_the_embedding_table_goes_to_the_gpu(moe: ModelSpec):
    said = memory_of(moe, SETTINGS, ONE)
    table = sum(t.size_bytes for t in moe.tensors if t.role is Role.EMBEDDING)
    assert on(said, "CPU") == table
    assert on(said, "GPU0") >= moe.tensor_bytes - table
    assert said.devices[1].cache_bytes == moe.cache_bytes(8192)


def test_equal_gpus_share_the_blocks(moe: ModelSpec):
    with DryRun(moe, TWO) as run:
        said = run.memory(SETTINGS)
        asked = run.memory(replace(SETTINGS, tensor_split=(3.0, 1.0)))
    caches = {d.device: d.cache_bytes for d in said.devices}
    assert 0.5 <= caches["GPU0"] / (caches["GPU0"] + caches["GPU1"]) < 0.55
    caches = {d.device: d.cache_bytes for d in asked.devices}
    assert 0.75 <= caches["GPU0"] / (caches["GPU0"] + caches["GPU1"]) < 0.8


def test_experts_that_stay_with_the_host_are_those_of_blocks_that_have_some(
    leading_dense: ModelSpec,
):
    """The first block has none, so `cpu_expert_layers=2` means the second and the third."""
    with DryRun(leading_dense, ONE) as run:
        all_there = run.memory(SETTINGS)
        two_here = run.memory(replace(SETTINGS, cpu_expert_layers=2))
    moved = [t for t in leading_dense.tensors if t.layer in (1, 2) and is_routed_expert(t)]
    assert on(two_here, "CPU") - on(all_there, "CPU") == sum(t.size_bytes for t in moved)


def test_a_large_batch_copies_experts_and_a_small_one_does_not(moe: ModelSpec):
    settings = replace(SETTINGS, cpu_expert_layers=4)
    with DryRun(moe, ONE) as run:
        large, small = run.memory(settings), run.memory(replace(settings, ubatch=16))
    largest = max(t.size_bytes for t in moe.tensors if is_routed_expert(t))
    assert graph(large, "GPU0") > largest > graph(small, "GPU0")


def test_several_gpus_pipeline_batches_and_one_does_not(moe: ModelSpec):
    one, two = memory_of(moe, SETTINGS, ONE), memory_of(moe, SETTINGS, TWO)
    mask_bytes = 512 * 8192 * 2
    assert graph(two, "GPU0") >= graph(one, "GPU0") + 3 * mask_bytes
    with_host_experts = memory_of(moe, replace(SETTINGS, cpu_expert_layers=1, ubatch=16), TWO)
    assert graph(with_host_experts, "GPU0") < graph(two, "GPU0")


def test_a_quantized_cache_is_turned_into_halves_for_prompts(moe: ModelSpec):
    settings = replace(SETTINGS, context=131072)
    with DryRun(moe, ONE) as run:
        halves = run.memory(settings)
        bytes_ = run.memory(replace(settings, cache_type_k="q8_0", cache_type_v="q8_0"))
    copies = 2 * 131072 * 4 * 128 * 2  # keys and values of one block
    # They are there in attention, when a graph of halves is not at its fullest.
    assert 0.7 * copies < graph(bytes_, "GPU0") - graph(halves, "GPU0") <= copies


def test_the_cache_may_stay_with_the_host(moe: ModelSpec):
    said = memory_of(moe, replace(SETTINGS, cache_on_host=True), ONE)
    assert {d.device: d.cache_bytes for d in said.devices} == {
        "CPU": moe.cache_bytes(8192),
        "GPU0": 0,
    }


def test_the_expert_cache_is_no_larger_than_asked(moe: ModelSpec):
    settings = replace(SETTINGS, cpu_expert_layers=99, expert_cache_bytes=GIB)
    said = memory_of(moe, settings, ONE)
    extra = said.devices[1].cache_bytes - (moe.cache_bytes(8192) or 0)
    assert GIB - 8 * MIB < extra <= GIB


def test_a_host_with_a_gpu_repacks_nothing(moe: ModelSpec):
    with_gpu = memory_of(moe, replace(SETTINGS, gpu_layers=0), ONE)
    assert with_gpu.devices[0].weights_repacked_bytes == 0


def test_free_memory_decides_the_split(moe: ModelSpec):
    small = VirtualDevice("two", 24 * GIB, 6 * GIB)
    said = memory_of(moe, SETTINGS, (TWO[0], small))
    assert on(said, "GPU0") > 3 * on(said, "GPU1")


def test_two_cards_of_one_make_are_told_apart(moe: ModelSpec) -> None:
    """The engine keys its buffers by the names of their types."""
    card = VirtualDevice("NVIDIA GeForce RTX 3090", 24 * GIB, 24 * GIB)
    found = memory_of(moe, SETTINGS, (card, card))
    by_device = {device.device: device for device in found.devices}
    for name in ("GPU0", "GPU1"):
        assert by_device[name].weights_bytes > GIB
        assert by_device[name].cache_bytes > 100 * MIB
