"""A plan's settings, an engine started with them, and what it reports of itself.

The same for a real llama-server with the exported flags, on many plans: bench/export/round_trip.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moestro.engine.protocol import EngineRequest
from moestro.planning import Settings
from tests.export.reported import wanted
from tests.export.talkative import reports_of
from tests.tiny_models import CONTEXT, write_tiny

PLAIN = Settings(
    context=300, parallel=3, threads=1, ubatch=64, cache_type_k="q8_0", flash_attention="on",
    prompt_cache_bytes=7 << 20, context_checkpoints=5,
)  # fmt: skip
DRAFTING = Settings(
    context=256, parallel=2, threads=2, ubatch=32, unified=True, mtp_depth=2, context_checkpoints=0
)


@pytest.mark.parametrize(("tiny", "settings"), [("qwen3moe", PLAIN), ("qwen35moe", DRAFTING)])
def test_the_embedded_engine_reports_what_was_planned(
    tmp_path: Path, tiny: str, settings: Settings
) -> None:
    path = write_tiny(tiny, tmp_path)
    reports = reports_of(EngineRequest(path, "tiny", settings))
    wants = wanted(
        settings, name="tiny", model=str(path), accelerated=False, trained_context=CONTEXT
    )
    assert {name: reports.get(name) for name in wants} == wants


def test_a_difference_would_be_seen() -> None:
    settings = replace(PLAIN, parallel=2)
    one, other = (
        wanted(each, name="m", model="m", accelerated=False, trained_context=CONTEXT)
        for each in (PLAIN, settings)
    )
    assert {name for name in one if one[name] != other[name]} == {
        "n_ctx",
        "streams",
        "outputs",
        "total_slots",
    }
