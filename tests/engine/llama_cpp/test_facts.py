"""What the engine says of itself, and what becomes of one that cannot say it."""

from __future__ import annotations

import json

import pytest

from moestro.engine.llama_cpp import facts
from moestro.engine.llama_cpp.facts import (
    ILLEGAL_INSTRUCTION,
    engine_facts,
    obstacle,
    parse_capabilities,
    parse_instruction_sets,
)
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.errors import EngineMismatch, EngineStartFailed
from moestro.hardware import Gpu

CPU = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | REPACK = 1 | "
CUDA = "CUDA : ARCHS = 500,610,700,750,800,860,890,1200 | FORCE_MMQ = 1 | USE_GRAPHS = 1 | "
ARM = "CPU : NEON = 1 | FP16_VA = 1 | MATMUL_INT8 = 1 | SVE = 1 | DOTPROD = 1 | SVE_CNT = 16 | "


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(facts, "child_command", lambda *_: ["sh", "-c", script])


def says(system: str, backends: list[str], last: str) -> str:
    first = json.dumps({"backends": backends, "system": system})
    return f"printf '%s\\n' 'a word of a driver' '{first}' '{last}'"


def test_the_engine_that_is_installed():
    found = engine_facts()
    assert found.version == EXPECTED_VERSION
    assert found.instruction_sets
    assert found.gpus >= 0
    assert found.build


@pytest.mark.parametrize(
    ("system", "sets", "capabilities"),
    [
        (CPU, ("AVX", "F16C", "FMA", "AVX2", "BMI2"), None),
        (CUDA + CPU, ("AVX", "F16C", "FMA", "AVX2", "BMI2"),
         ((5, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (12, 0))),
        (ARM, ("NEON", "FP16", "DOTPROD", "I8MM", "SVE"), None),
        ("CPU : AVX512 = 1 | AVX512_VNNI = 1 | AMX_INT8 = 1 | AVX2 = 0 | ",
         ("AVX-512", "AVX-512-VNNI", "AMX-INT8"), None),
        ("MTL : EMBED_LIBRARY = 1 | " + ARM, ("NEON", "FP16", "DOTPROD", "I8MM", "SVE"), None),
        ("", (), None),
        ("CUDA : ARCHS =  | CPU : ", (), None),
    ],
)  # fmt: skip
def test_the_engines_own_words(
    system: str, sets: tuple[str, ...], capabilities: tuple[tuple[int, int], ...] | None
):
    assert parse_instruction_sets(system) == sets
    assert parse_capabilities(system) == capabilities


@pytest.mark.parametrize(
    ("installed", "backends", "build", "last", "gpus"),
    [
        (f"{EXPECTED_VERSION}+cu128", ["CUDA", "CPU"], "cu128", "2 0 1", 2),
        (EXPECTED_VERSION, ["CUDA", "CPU"], "cuda", "1 0", 1),
        (EXPECTED_VERSION, ["MTL", "BLAS", "CPU"], "metal", "2 0", 1),
        (EXPECTED_VERSION, ["CPU"], "cpu", "0", 0),
    ],
)
def test_builds(
    installed: str,
    backends: list[str],
    build: str,
    last: str,
    gpus: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(facts, "installed_version", lambda: installed)
    child(monkeypatch, says(CUDA + CPU, backends, last))
    found = engine_facts()
    assert (found.version, found.build, found.gpus) == (EXPECTED_VERSION, build, gpus)


def test_another_release(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts, "installed_version", lambda: "2026.1.1")
    with pytest.raises(EngineMismatch, match=r"2026\.1\.1"):
        engine_facts()


def test_instructions_that_the_processor_lacks(monkeypatch: pytest.MonkeyPatch):
    child(monkeypatch, "kill -ILL $$")
    with pytest.raises(EngineStartFailed) as raised:
        engine_facts()
    assert raised.value.code == ILLEGAL_INSTRUCTION


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo the reason >&2; exit 1", "failed"),
        ("kill -SEGV $$", "signal 11"),
        ("echo 0", "did not say"),
        ("printf '{}\\n0\\n'", "did not say"),
        ("true", "did not say"),
    ],
)
def test_an_engine_that_cannot_say_it(script: str, words: str, monkeypatch: pytest.MonkeyPatch):
    child(monkeypatch, script)
    with pytest.raises(EngineStartFailed, match=words):
        engine_facts()


def test_an_engine_that_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts, "TIMEOUT_SECONDS", 0.05)
    child(monkeypatch, "exec sleep 20")
    with pytest.raises(EngineStartFailed, match="within"):
        engine_facts()


@pytest.mark.parametrize(
    ("build", "capability", "driver", "words"),
    [
        ("cu128", (8, 9), (12, 2), None),
        ("cu128", (8, 9), (11, 8), "needs a driver for CUDA 12.0"),
        ("cu132", (9, 0), (13, 0), "needs a driver for CUDA 13.2"),
        ("cu132", (6, 1), (13, 2), "older than CUDA 13.2 supports"),
        ("cpu", (6, 1), (11, 0), None),
        ("cu132", None, (11, 0), None),
    ],
)
def test_what_keeps_a_build_from_a_gpu(
    build: str, capability: tuple[int, int] | None, driver: tuple[int, int], words: str | None
):
    said = obstacle(build, Gpu("nvidia", "GPU", capability=capability), driver)
    assert said is None if words is None else said is not None and words in said
