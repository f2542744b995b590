"""modelinfo-cli reads the GGUF's header. Its cache is always f16."""

from __future__ import annotations

import importlib
from typing import Any


def answer(question: dict[str, Any]) -> dict[str, Any]:
    cli = importlib.import_module("modelinfo.cli")
    found = cli.analyze_model(
        question["gguf"], question["context"], batch_size=question["parallel"]
    )
    sizes = found["footprint"]
    said: dict[str, Any] = {
        "weights_bytes": int(sizes["base_memory_bytes"]),
        "why": {
            "compute_bytes": "a constant 600 MiB for the CUDA context",
            "decode_tokens_per_second": "does not estimate speed",
            "flags": "gives none",
        },
    }
    if question["cache_type"] == "f16":
        said["cache_bytes"] = int(sizes["kv_cache_bytes"])
        said["total_bytes"] = int(sizes["total_memory_bytes"])
    else:
        said["why"]["cache_bytes"] = said["why"]["total_bytes"] = "knows an f16 cache only"
    if question["hardware"]:
        # What it colours red or green under `--gpu RTX4090`; nothing outside the GPU exists.
        said["fits"] = sizes["total_memory_bytes"] <= question["hardware"]["gpu_label_gb"] * 2**30
        said["note"] = "GPU memory only; no offload"
    return said
