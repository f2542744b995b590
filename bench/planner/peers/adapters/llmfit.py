"""llmfit knows models by name: its own database, its own parameters × bytes.

It prints "GB" for two units: weights and sums are parameters / 10⁹ × bytes, the cache is counted
in 2³⁰. Both are taken here as the program counts them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GIB = 2**30
CACHE_NAMES = {"f16": "fp16", "q8_0": "q8_0", "q4_0": "q4_0"}


def run(*words: str) -> dict[str, Any]:
    program = Path(sys.executable).with_name("llmfit")
    done = subprocess.run(
        [str(program), *words, "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    start = done.stdout.find("{")
    if done.returncode != 0 or start < 0:
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    return dict(json.JSONDecoder().raw_decode(done.stdout[start:])[0])


def answer(question: dict[str, Any]) -> dict[str, Any]:
    machine = question["hardware"]
    # It has no word for parallel streams in a plan: the whole cache is asked for as context.
    tokens = question["context"] * question["parallel"]
    cache = CACHE_NAMES[question["cache_type"]]
    overrides = []
    if machine:
        overrides = [
            "--memory", f"{machine['gpu_memory_bytes'] // 2**20}M",
            "--ram", f"{machine['ram_bytes'] // GIB}G",
        ]  # fmt: skip
    plan = run(
        *overrides, "plan", question["hub"], "--context", str(tokens),
        "--quant", question["quantization"], "--kv-quant", cache,
    )  # fmt: skip
    kept = next(kv for kv in plan["kv_alternatives"] if kv["kv_quant"] == cache)
    said: dict[str, Any] = {
        "weights_bytes": int(plan["disk_size_gb"] * 1e9),
        "cache_bytes": int(kept["kv_cache_gb"] * GIB),
        "total_bytes": int(plan["minimum"]["vram_gb"] * 1e9),
        "why": {
            "compute_bytes": "a constant 0.5 GB inside its sum",
            "flags": "gives none for a plan",
        },
    }
    if machine:
        now = plan["current"]
        said["fits"] = now["fit_level"] != "TooTight"
        said["decode_tokens_per_second"] = {"expected": now["estimated_tps"]}
        said["note"] = f"{now['run_mode']}, {now['fit_level']}"
        # `info` alone knows of experts in host memory; it chooses its own quantization.
        info = run(*overrides, "--max-context", str(tokens), "info", question["hub"])["models"][0]
        said["note"] += f"; info: {info['best_quant']} {info['run_mode']}, {info['fit_level']}"
        if info["moe_offloaded_gb"]:
            said["note"] += (
                f", {info['memory_required_gb']} GB on the GPU and"
                f" {info['moe_offloaded_gb']} GB of experts in host memory"
            )
            said["gpu_bytes"] = int(info["memory_required_gb"] * GIB)
    return said
