"""The engine's own memory against the planner's formulae: a sample of `bench/planner/memory.py`.

Weights and cache have to agree to the byte, on every device; the total of formulae with what the
engine reports within 5 %. Models are headers of published shapes with a small vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moestro.engine.llama_cpp.dry_run import DryRun, EngineMemory
from moestro.engine.llama_cpp.virtual_device import VirtualDevice
from moestro.errors import EngineStartFailed
from moestro.hardware import Inventory
from moestro.hardware.gpu import Gpu
from moestro.hardware.memory import Memory
from moestro.hardware.this_machine import this_inventory
from moestro.model import ModelSpec, read_model
from moestro.planning.memory import Ledger, ledger
from moestro.planning.placement import place
from moestro.planning.settings import Settings
from moestro.units import GIB, MIB
from tests.shapes import PUBLISHED, write_header

BASE = Settings(context=1000, parallel=3, threads=2)
HOST_SETTINGS = (
    BASE,
    Settings(context=131072, parallel=1, threads=2, ubatch=128),
    replace(BASE, ubatch=2048, cache_type_k="q8_0", cache_type_v="q8_0"),
    replace(BASE, unified=True, flash_attention="off"),
)
DRAFT_SETTINGS = (replace(BASE, mtp_depth=2), replace(BASE, context=8192, parallel=1, mtp_depth=1))
GPU_SETTINGS = (
    BASE,
    replace(BASE, cache_type_k="q8_0", cache_type_v="q8_0", cpu_expert_layers=2),
    replace(BASE, gpu_layers=6, cache_on_host=True),
    replace(BASE, cpu_expert_layers=999, expert_cache_bytes=2 * GIB),
    replace(BASE, tensor_split=(1.0, 3.0)),
)

# One for each kind of cache and of blocks: heads, latent, latent of old files, windows, states,
# short convolutions, compressed; leading dense, shared experts, drafts, tied embeddings, dense.
NAMES = (
    "Qwen3-30B-A3B",
    "Mixtral-8x7B",
    "Qwen2-57B-A14B",
    "DeepSeek-V3",
    "DeepSeek-V2-Lite",
    "gpt-oss-20b",
    "Gemma-3-1B",
    "Qwen3.6-35B-A3B",
    "Qwen3.6-27B",
    "GLM-4.5-Air",
    "LFM2-8B-A1B",
    "SmolLM2-135M",
    "DeepSeek-V4-Flash",
    "DeepSeek-V4-Pro",
)


def model(name: str, folder: Path) -> ModelSpec:
    return read_model(write_header(PUBLISHED[name]().with_vocabulary(512), folder / "m.gguf"))


def machine(*gpus_gib: int) -> Inventory:
    gpus = tuple(
        Gpu("nvidia", "g", memory_bytes=(free + 1) * GIB, free_bytes=free * GIB)
        for free in gpus_gib
    )
    here = this_inventory(gpus=False)
    return replace(here, memory=Memory(1024 * GIB, 1024 * GIB), gpus=gpus)


def draft_bytes(book: Ledger) -> int:
    kinds = ("draft cache", "draft graph")
    lines = [line for device in book.devices for line in device.lines]
    return sum(line.size_bytes for line in lines if line.kind in kinds)


def check(book: Ledger, said: EngineMemory) -> None:
    exact = {
        device.device: (device.weights_bytes, device.cache_bytes + device.expert_cache_bytes)
        for device in book.devices
        if device.weights_bytes or device.cache_bytes or device.expert_cache_bytes
    }
    assert exact == {
        device.device: (device.weights_bytes, device.cache_bytes)
        for device in said.devices
        if device.weights_bytes or device.cache_bytes
    }
    lines = [line for device in book.devices for line in device.lines]
    drafts = sum(line.size_bytes for line in lines if line.kind == "draft cache")
    assert drafts == sum(device.cache_bytes for device in said.draft)


def total(book: Ledger) -> int:
    graphs = [line for d in book.devices for line in d.lines if line.kind == "graph"]
    parts = sum(device.weights_bytes + device.cache_bytes for device in book.devices)
    return parts + sum(line.size_bytes for line in graphs) + draft_bytes(book)


def engine_total(said: EngineMemory) -> int:
    return sum(device.total_bytes for device in (*said.devices, *said.draft))


@pytest.mark.parametrize("name", NAMES)
def test_on_the_host(name: str, tmp_path: Path):
    spec = model(name, tmp_path)
    inventory = machine()
    with DryRun(spec, ()) as engine:
        for settings in (*HOST_SETTINGS, *(DRAFT_SETTINGS if spec.mtp_layers else ())):
            said = engine.memory(settings)
            book = ledger(spec, settings, inventory, place(spec, settings))
            check(book, said)
            assert total(book) == pytest.approx(engine_total(said), rel=0.05), settings


@pytest.mark.parametrize("name", ["DeepSeek-V3", "Qwen3.6-35B-A3B", "Gemma-3-1B"])
def test_on_two_uneven_gpus_that_are_not_there(name: str, tmp_path: Path):
    spec = model(name, tmp_path)
    inventory = machine(24, 10)
    virtual = [VirtualDevice("a", 25 * GIB, 24 * GIB), VirtualDevice("b", 11 * GIB, 10 * GIB)]
    with DryRun(spec, virtual) as engine:
        for settings in GPU_SETTINGS:
            if settings.expert_cache_bytes and spec.experts is None:
                continue
            said = engine.memory(settings)
            placement = place(spec, settings, (24 * GIB, 10 * GIB))
            check(ledger(spec, settings, inventory, placement), said)


def test_the_engines_figures_replace_the_formulae(tmp_path: Path):
    spec = model("Qwen3.6-35B-A3B", tmp_path)
    settings = replace(BASE, mtp_depth=2)
    with DryRun(spec, ()) as engine:
        said = engine.memory(settings)
    book = ledger(spec, settings, machine(), place(spec, settings), said)
    assert total(book) == engine_total(said)
    graph = next(line for line in book.devices[0].lines if line.kind == "graph")
    assert graph.source == "computed"
    assert graph.size_bytes == said.devices[0].compute_bytes


def test_the_expert_cache_is_told_apart_from_the_cache(tmp_path: Path):
    spec = model("Qwen3.6-35B-A3B", tmp_path)
    settings = replace(BASE, cpu_expert_layers=999, expert_cache_bytes=2 * GIB)
    inventory, placement = machine(24), place(spec, settings, (24 * GIB,))
    with DryRun(spec, [VirtualDevice("a", 25 * GIB, 24 * GIB)]) as engine:
        said = engine.memory(settings)
    by_engine = ledger(spec, settings, inventory, placement, said).device("GPU0")
    by_formula = ledger(spec, settings, inventory, placement).device("GPU0")
    assert by_engine.cache_bytes == by_formula.cache_bytes
    assert 2 * GIB - 8 * MIB < by_engine.expert_cache_bytes <= 2 * GIB


def test_more_tokens_than_the_engine_counts_are_refused(tmp_path: Path):
    """2^30 tokens for each of 4 streams are 0 in 32 bits, and would take no memory at all."""
    spec = model("SmolLM2-135M", tmp_path)
    with DryRun(spec, ()) as engine, pytest.raises(EngineStartFailed, match="at most"):
        engine.memory(replace(BASE, context=1 << 30, parallel=4))
