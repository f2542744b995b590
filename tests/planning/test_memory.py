"""The memory ledger, without an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench.planner.model_files import q4_k_m_of

from moestro.hardware import Inventory
from moestro.hardware.cpu import Cpu
from moestro.hardware.gpu import Gpu
from moestro.hardware.memory import Memory
from moestro.model import ModelSpec, Projector, Role, read_model
from moestro.planning.compute_buffer import GraphShape, compute_bytes
from moestro.planning.engine_memory import DeviceMemory, EngineMemory
from moestro.planning.memory import READ_WEIGHTS, Ledger, ledger
from moestro.planning.placement import HOST, place
from moestro.planning.settings import Family, Settings
from moestro.units import GIB, MIB
from tests.shapes import PUBLISHED, write_header

BASE = Settings(context=8192, parallel=1, threads=2)
AVX2 = Cpu("x", "x86_64", 8, 8, ("SSE4.2", "AVX2"))
OLD = Cpu("y", "x86_64", 4, 4, ("SSE4.2",))


def machine(*gpus_gib: int, cpu: Cpu = AVX2) -> Inventory:
    gpus = tuple(
        Gpu("nvidia", "g", memory_bytes=(g + 1) * GIB, free_bytes=g * GIB) for g in gpus_gib
    )
    memory = Memory(64 * GIB, 60 * GIB)
    return Inventory(name="m", source="file", system="Linux", cpu=cpu, memory=memory, gpus=gpus)


def booked(model: ModelSpec, settings: Settings, inventory: Inventory) -> Ledger:
    free = [gpu.free_bytes or 0 for gpu in inventory.gpus]
    return ledger(model, settings, inventory, place(model, settings, free))


def line_bytes(book: Ledger, device: str, kind: str) -> int:
    return sum(line.size_bytes for line in book.device(device).lines if line.kind == kind)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name in ("Qwen3-30B-A3B", "Mixtral-8x7B", "Qwen3.6-35B-A3B", "Gemma-3-1B", "LFM2-1.2B"):
        shape = PUBLISHED[name]()
        path = write_header(shape, folder / f"{name}.gguf", types=q4_k_m_of(shape))
        found[name] = read_model(path)
    return found


@pytest.mark.parametrize(
    ("name", "ubatch", "cache_type", "weights", "cache", "compute"),
    [
        ("Qwen3-30B-A3B", 512, "f16", 17691, 768, 324),
        ("Qwen3-30B-A3B", 512, "q8_0", 17691, 408, 324),
        ("Qwen3-30B-A3B", 2048, "f16", 17691, 768, 1299),
        ("Mixtral-8x7B", 512, "f16", 27129, 1024, 216),
    ],
)
def test_rows_of_the_engines_own_allocator(
    models: dict[str, ModelSpec],
    name: str,
    ubatch: int,
    cache_type: str,
    weights: int,
    cache: int,
    compute: int,
):
    """MiB at 8192 tokens, as `llama-fit-params -fitp on -fa on` prints them."""
    model = models[name]
    settings = replace(BASE, ubatch=ubatch, cache_type_k=cache_type, cache_type_v=cache_type)
    host = booked(model, settings, machine()).device(HOST)
    graph = compute_bytes(
        GraphShape(model), settings, place(model, settings), 0, every_token_outputs=True
    )
    assert host.weights_bytes // MIB == weights
    assert host.cache_bytes == cache * MIB
    assert graph[HOST] // MIB == compute


def test_the_parts_add_up(models: dict[str, ModelSpec]):
    settings = replace(BASE, mtp_depth=2, prompt_cache_bytes=GIB, context_checkpoints=2)
    host = booked(models["Qwen3.6-35B-A3B"], settings, machine()).device(HOST)
    said = host.to_json()
    parts = ("weights_bytes", "cache_bytes", "compute_bytes", "other_bytes")
    assert sum(said[part] for part in parts) == said["total_bytes"] == host.total_bytes
    assert sum(line["bytes"] for line in said["lines"]) == said["total_bytes"]
    assert said["capacity_bytes"] == 60 * GIB
    assert all(line.source for line in host.lines)


def test_bounds_are_not_resident(models: dict[str, ModelSpec]):
    settings = replace(BASE, prompt_cache_bytes=GIB, context_checkpoints=4)
    book = booked(models["Qwen3.6-35B-A3B"], settings, machine())
    checkpoints = line_bytes(book, HOST, "context checkpoints")
    assert checkpoints == 4 * (models["Qwen3.6-35B-A3B"].recurrent_bytes_per_sequence or 0)
    bounds = GIB + checkpoints + line_bytes(book, HOST, "margin")
    assert book.device(HOST).total_bytes - book.resident_bytes(HOST) == bounds


def test_drafting_adds_its_block_its_context_and_snapshots(models: dict[str, ModelSpec]):
    model = models["Qwen3.6-35B-A3B"]
    plain = booked(model, BASE, machine())
    drafting = booked(model, replace(BASE, mtp_depth=3), machine())
    mtp_bytes = sum(t.size_bytes for t in model.tensors if t.role is Role.MTP)
    grown = drafting.device(HOST).weights_bytes - plain.device(HOST).weights_bytes
    assert grown == pytest.approx(mtp_bytes, abs=1024)
    states = line_bytes(plain, HOST, "recurrent states")
    assert line_bytes(drafting, HOST, "recurrent states") == 4 * states
    assert line_bytes(drafting, HOST, "draft cache") == 8192 * 2048  # 2 heads of 256, f16, K and V


def test_repacking_follows_the_processor(models: dict[str, ModelSpec]):
    model = models["Qwen3-30B-A3B"]
    with_avx2 = booked(model, BASE, machine())
    without = booked(model, BASE, machine(cpu=OLD))
    assert line_bytes(with_avx2, HOST, "weights, repacked") > 10 * GIB
    assert line_bytes(without, HOST, "weights, repacked") == 0
    assert with_avx2.device(HOST).weights_bytes == without.device(HOST).weights_bytes


def test_a_tied_head_is_kept_twice_where_it_needs_another_buffer(models: dict[str, ModelSpec]):
    model = models["Gemma-3-1B"]
    table = next(t for t in model.tensors if t.name == "token_embd.weight")
    host = booked(model, BASE, machine(cpu=OLD))
    gpu = booked(model, BASE, machine(24))
    assert host.device(HOST).weights_bytes == pytest.approx(model.tensor_bytes, abs=4096)
    assert gpu.device(HOST).weights_bytes == pytest.approx(table.size_bytes, abs=64)
    assert gpu.device("GPU0").weights_bytes > model.tensor_bytes - 4096


def test_every_gpu_costs_a_context(models: dict[str, ModelSpec]):
    book = booked(models["Mixtral-8x7B"], BASE, machine(24, 24))
    assert line_bytes(book, "GPU0", "device context") > 0
    assert line_bytes(book, "GPU1", "device context") > 0
    assert next(
        line.source for line in book.device("GPU1").lines if line.kind == "device context"
    ) == "assumed"  # fmt: skip


def test_capacity_is_what_is_free(models: dict[str, ModelSpec]):
    inventory = machine(24)
    unknown = replace(inventory, gpus=(Gpu("nvidia", "g"),))
    settings = replace(BASE, gpu_layers=0)
    model = models["Mixtral-8x7B"]
    assert booked(model, settings, inventory).device("GPU0").capacity_bytes == 24 * GIB
    assert booked(model, settings, unknown).device("GPU0").capacity_bytes is None


def test_what_is_read_is_not_the_files_own_pages(models: dict[str, ModelSpec]):
    """Repacked copies are llama.cpp's; ik_llama.cpp rearranges what it has read."""
    model = models["Qwen3-30B-A3B"]

    def weights(settings: Settings, family: Family) -> dict[str, int]:
        book = ledger(model, settings, machine(), place(model, settings), family=family)
        lines = book.device(HOST).lines
        return {line.kind: line.size_bytes for line in lines if line.part == "weights"}

    usual = weights(BASE, "llama.cpp")
    assert usual["weights, repacked"] > usual["weights"]
    plain = weights(replace(BASE, repack=False), "llama.cpp")
    assert set(plain) == {"weights"}
    # The embedding table of this model is no output head, so nothing is kept twice.
    assert plain["weights"] == sum(usual.values())
    for mode in ("none", "mlock"):
        read = weights(replace(BASE, repack=False, load_mode=mode), "llama.cpp")
        assert read == {READ_WEIGHTS: plain["weights"]}
    assert set(weights(replace(BASE, load_mode="none"), "llama.cpp")) == {
        READ_WEIGHTS,
        "weights, repacked",
    }
    assert weights(BASE, "ik_llama.cpp") == {READ_WEIGHTS: plain["weights"]}
    assert weights(replace(BASE, repack=False), "ik_llama.cpp") == plain


def test_drafts_from_the_text_take_outputs(models: dict[str, ModelSpec]):
    model = models["Qwen3-30B-A3B"]
    before = booked(model, BASE, machine())
    after = booked(model, replace(BASE, ngram="mod"), machine())
    more = line_bytes(after, HOST, "outputs") - line_bytes(before, HOST, "outputs")
    assert more == 4 * 64 * (model.vocabulary or 0)


def test_a_batch_below_the_ubatch_bounds_the_graph(models: dict[str, ModelSpec]):
    model = models["Qwen3-30B-A3B"]
    small = booked(model, replace(BASE, batch=128), machine())
    assert line_bytes(small, HOST, "graph") == line_bytes(
        booked(model, replace(BASE, ubatch=128), machine()), HOST, "graph"
    )


def test_the_projector_lies_beside_the_model(models: dict[str, ModelSpec]):
    model = replace(models["Qwen3.6-35B-A3B"], projector=Projector("mmproj.gguf", 900 * MIB))
    assert line_bytes(booked(model, BASE, machine()), HOST, "projector") == 900 * MIB
    assert line_bytes(booked(model, BASE, machine(24)), "GPU0", "projector") == 900 * MIB


def test_an_unknown_cache_is_said_to_be_unknown(models: dict[str, ModelSpec]):
    model = replace(models["Mixtral-8x7B"], layers=None)
    book = booked(model, BASE, machine())
    assert not book.cache_known
    assert book.device(HOST).cache_bytes == 0
    said = EngineMemory((DeviceMemory("CPU", 10, 20, 30),))
    told = ledger(model, BASE, machine(), place(model, BASE), said)
    assert told.cache_known
    assert told.device(HOST).cache_bytes == 20


def test_more_of_anything_never_takes_less(models: dict[str, ModelSpec]):
    for model in models.values():
        before = booked(model, BASE, machine()).device(HOST).total_bytes
        for more in (
            replace(BASE, context=16384),
            replace(BASE, parallel=2),
            replace(BASE, ubatch=1024),
            replace(BASE, flash_attention="off"),
            replace(BASE, prompt_cache_bytes=MIB),
        ):
            assert booked(model, more, machine()).device(HOST).total_bytes > before


def test_moving_experts_to_the_host_moves_their_bytes(models: dict[str, ModelSpec]):
    model = models["Qwen3-30B-A3B"]
    before = booked(model, BASE, machine(24))
    after = booked(model, replace(BASE, cpu_expert_layers=10), machine(24))
    gone = before.device("GPU0").weights_bytes - after.device("GPU0").weights_bytes
    came = after.device(HOST).weights_bytes - before.device(HOST).weights_bytes
    experts = [t for t in model.tensors if t.role is Role.ROUTED_EXPERTS and (t.layer or 0) < 10]
    assert came == sum(t.size_bytes for t in experts)
    assert gone >= came  # a GPU pads rows


def test_hidden_padding_of_quantized_caches_on_gpus(tmp_path: Path):
    model = read_model(
        write_header(PUBLISHED["SmolLM2-135M"]().with_vocabulary(512), tmp_path / "m.gguf")
    )
    settings = replace(BASE, cache_type_k="q8_0", cache_type_v="q8_0")
    on_gpu = booked(model, settings, machine(24)).device("GPU0").cache_bytes
    on_host = booked(model, settings, machine()).device(HOST).cache_bytes
    assert on_gpu - on_host == 30 * 2 * 384  # 340 bytes to a row of 512, to 128 bytes
