"""The dry run over GPUs that are not there against what people saw on GPUs that were.

    python -m bench.planner.memory_published

Figures are from public threads (`source`), of llama.cpp releases other than the pinned one, so they
show whether a virtual GPU is treated like a real one and not whether every byte is the same. Rows
whose release still planned logits for every token, or kept no copies of a quantized cache in the
graph's buffer, say so.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.shapes import PUBLISHED, Shape, families, write_header

from bench.planner.model_files import q4_k_m_of
from moestro.engine.llama_cpp.dry_run import DryRun
from moestro.engine.llama_cpp.virtual_device import VirtualDevice
from moestro.model import read_model
from moestro.planning.settings import Settings
from moestro.units import GIB, MIB

RESULTS = Path(__file__).parent / "results"
BASE = Settings(context=262144, parallel=1, threads=2, flash_attention="on")
Q8 = replace(BASE, cache_type_k="q8_0", cache_type_v="q8_0")


def qwen35(hidden: int, ffn: int, *, tied: bool) -> Callable[[], Shape]:
    """The 4B and 9B of Qwen3.5, which differ in width."""
    return lambda: families.qwen35(
        layers=32, hidden=hidden, heads=16, kv_heads=4, head_dim=256, linear_v_heads=32,
        linear_k_heads=16, linear_dim=128, vocab=248320, ffn=ffn, tied=tied,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """`mib` of `what` (weights, cache or compute) on `device`, to `digits` decimals as printed."""

    model: str
    shape: Callable[[], Shape]
    settings: Settings
    device: str
    what: str
    mib: float
    source: str
    note: str = ""
    every_token_outputs: bool = False


_STUDIO = "https://github.com/unslothai/unsloth/pull/6718"
_LLAMA_BENCH = "https://github.com/GenerelSchwerz/llama.cpp/pull/62"
_TWELVE_GB = "a public repository's notes on Qwen3.5-9B with -c 262144 -np 2 -kvu -ctk q8_0 -fa on"
_SMALL, _MIDDLE = qwen35(2560, 9216, tied=True), qwen35(4096, 12288, tied=False)
_SHARED = replace(Q8, context=131072, parallel=2, unified=True)

SEEN = (
    Seen("Qwen3.5-4B", _SMALL, BASE, "GPU0", "compute", 0.31 * 1024, _STUDIO),
    Seen("Qwen3.5-4B", _SMALL, Q8, "GPU0", "compute", 1.30 * 1024, _STUDIO,
         "a quantized cache is copied into f16, block by block"),
    Seen("Qwen3.5-9B", _MIDDLE, _SHARED, "GPU0", "cache", 4352.0 + 100.5, _TWELVE_GB),
    Seen("Qwen3.5-9B", _MIDDLE, _SHARED, "CPU", "weights", 545.62, _TWELVE_GB),
    Seen("Qwen3.5-9B", _MIDDLE, replace(_SHARED, cache_type_k="f16", cache_type_v="f16"), "GPU0",
         "compute", 808.02, _TWELVE_GB,
         "that release planned logits for every token and no copies of the cache", True),
    Seen("Qwen3.8-27B", PUBLISHED["Qwen3.6-27B"],
         replace(BASE, context=4096, ubatch=2048, cache_on_host=True), "GPU0", "compute", 568.0,
         _LLAMA_BENCH, "shape of Qwen3.6-27B; cache on the host"),
)  # fmt: skip


def main() -> None:
    rows = []
    gpu = (VirtualDevice("GPU0", 48 * GIB, 47 * GIB),)
    with tempfile.TemporaryDirectory() as name:
        for number, seen in enumerate(SEEN):
            shape = seen.shape()
            path = Path(name) / f"{number}.gguf"
            spec = read_model(write_header(shape, path, types=q4_k_m_of(shape)))
            with DryRun(spec, gpu) as engine:
                said = engine.memory(seen.settings, every_token_outputs=seen.every_token_outputs)
            device = next(device for device in said.devices if device.device == seen.device)
            mib = getattr(device, f"{seen.what}_bytes") / MIB
            row = {
                "model": seen.model,
                "what": f"{seen.what} on {seen.device}",
                "seen_mib": round(seen.mib, 2),
                "dry_run_mib": round(mib, 2),
                "ratio": round(mib / seen.mib, 3),
                "note": seen.note,
                "source": seen.source,
            }
            rows.append(row)
            print(*row.values(), sep=" | ")
    (RESULTS / "memory_published.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
