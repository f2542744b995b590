"""vramscout plans vLLM-like servers from the hub; INT4 is its nearest word for a 4-bit file.

The hub's parameter count comes from here; so does the size it would have to measure.
"""

from __future__ import annotations

import importlib
from typing import Any

GIB = 2**30


def answer(question: dict[str, Any]) -> dict[str, Any]:
    hub: Any = importlib.import_module("vramscout.modern_v06")
    newest = importlib.import_module("vramscout.modern_v07")
    hub._selected_hub_metadata = lambda *_: (question["parameters"], None)
    if question["cache_type"] != "f16":
        return {"failed": "knows no such cache type"}
    machine = question["hardware"]
    plan = newest.plan_modern(
        question["folder"],
        context=question["context"],
        batch_size=question["parallel"],
        weight_dtype="int4",
        kv_dtype="fp16",
        prefill_chunk=question["ubatch"],
        vram_gib=(machine["gpu_memory_bytes"] if machine else 2**50) / GIB,
    )
    parts = {name: int(size * GIB) for name, size in plan.parts_gib.items()}
    weights = parts.pop("Model weights / rank")
    other = {"CUDA / runtime", "Prefill scratch", "Safety reserve"}
    said: dict[str, Any] = {
        "weights_bytes": weights,
        "cache_bytes": sum(size for name, size in parts.items() if name not in other),
        "compute_bytes": parts.get("Prefill scratch"),
        "why": {
            "decode_tokens_per_second": "does not estimate speed",
            "flags": "gives none for llama.cpp",
        },
    }
    if machine:
        said["total_bytes"] = int(plan.total_gib * GIB)
        said["fits"] = plan.fits
        said["note"] = "GPU memory only; no offload"
    else:
        said["why"]["total_bytes"] = "its reserve is a share of a GPU: none named here"
    return said
