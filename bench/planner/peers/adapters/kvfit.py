"""kvfit works from a `config.json` and the repository's file sizes; GPUs of servers only."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

BYTES = {"f16": 2.0}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    architectures = importlib.import_module("kvfit.architectures")
    planner = importlib.import_module("kvfit.planner")
    hardware = importlib.import_module("kvfit.hardware")
    if question["cache_type"] not in BYTES:
        return {"failed": "knows fp8, int8 and int4 caches, not blocks with scales (q8_0, q4_0)"}
    config = json.loads(Path(question["folder"], "config.json").read_text(encoding="utf-8"))
    cache = architectures.estimate_cache(
        config, context_tokens=question["context"], kv_bytes=BYTES[question["cache_type"]]
    )
    said: dict[str, Any] = {
        "weights_bytes": question["file_bytes"],
        "cache_bytes": int(cache.total_bytes * question["parallel"]),
        "total_bytes": int(question["file_bytes"] + cache.total_bytes * question["parallel"]),
        "why": {
            "compute_bytes": "left to a reserve of 10 %",
            "decode_tokens_per_second": "does not estimate speed",
            "flags": "gives none for llama.cpp",
        },
        "note": cache.confidence,
    }
    machine = question["hardware"]
    if machine:
        layouts = planner.plan_topologies(
            cache,
            weight_bytes=question["file_bytes"],
            hardware=hardware.parse_hardware(f"custom:{machine['gpu_memory_bytes'] / 2**30}"),
            gpus=1,
            utilization=0.9,
        )
        said["fits"] = any(layout.total_sequences >= question["parallel"] for layout in layouts)
        said["note"] = "GPU memory only; no offload"
    return said
