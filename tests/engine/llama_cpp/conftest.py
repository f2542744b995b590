from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.engine import EngineRequest
from moestro.engine.llama_cpp.engine import LlamaCppEngine
from moestro.planning import Settings
from tests.tiny_models import write_tiny

SETTINGS = Settings(context=512, parallel=2, threads=2, gpu_layers=0)
MakeEngine = Callable[..., LlamaCppEngine]


@pytest.fixture(scope="session")
def tiny_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid mixture of experts with a shared expert and one MTP block."""
    return write_tiny("qwen35moe", tmp_path_factory.mktemp("tiny-moe"))


@pytest.fixture(scope="session")
def tiny_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("tiny-dense"))


@pytest.fixture
async def make_engine() -> AsyncIterator[MakeEngine]:
    """Makes engines that end with the test, whatever the test does to them."""
    made: list[LlamaCppEngine] = []

    def make(model: Path, *, log_file: Path | None = None, **settings: Any) -> LlamaCppEngine:
        request = EngineRequest(model, "tiny", replace(SETTINGS, **settings))
        made.append(LlamaCppEngine(request, log_file=log_file))
        return made[-1]

    yield make
    for engine in made:
        await engine.stop(grace_seconds=0.5)
