"""moe-fit reads the GGUF; machine figures are given in its own words (`--vram-gb`, `--ram-gb`)."""

from __future__ import annotations

import importlib
from typing import Any


def answer(question: dict[str, Any]) -> dict[str, Any]:
    gguf = importlib.import_module("moefit.gguf")
    plan = importlib.import_module("moefit.plan")
    machines = importlib.import_module("moefit.machine")
    machine = question["hardware"]
    bits = {"f16": 16, "q8_0": 8}[question["cache_type"]]
    # No word for parallel streams: the engine's own context, all streams together.
    tokens = question["context"] * question["parallel"]
    model = gguf.read(question["gguf"])
    there = machines.Machine(
        vram_bytes=machine["gpu_memory_bytes"] if machine else 0,
        ram_bytes=machine["ram_bytes"] if machine else 2**50,
        free_disk_bytes=2**50,
        disk_path="",
    )
    made = plan.make(model, there, context=tokens, kv_bits=bits)
    said: dict[str, Any] = {
        "weights_bytes": model.total_bytes,
        "cache_bytes": plan.kv_cache_bytes(model, tokens, bits),
        "why": {
            "compute_bytes": "not counted: 2 GB are held back on a GPU, 8 GB in host memory",
            "total_bytes": "gives no sum",
            "decode_tokens_per_second": "speaks of storage only: none while the model is in memory",
        },
    }
    if machine:
        said["fits"] = made.fits
        said["cpu_expert_layers"] = made.expert_layers_on_cpu
        said["gpu_layers"] = 999
        said["note"] = made.reason or made.summary()
        if made.fits:
            flags = plan.llama_flags(model, made, "MODEL", tokens, bits)
            said["flags"] = " ".join(flags)
    return said
