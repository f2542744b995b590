"""ridgepoint models the engine (llama.cpp among them) from the hub's `config.json` and shapes.

The hub's two answers come from here: the configuration, and the number of parameters that it
would sum from the safetensors headers. It plans GPUs only; its answers come with ranges.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any


def answer(question: dict[str, Any]) -> dict[str, Any]:
    ridgepoint = importlib.import_module("ridgepoint")
    hub: Any = importlib.import_module("ridgepoint.hf")
    config = json.loads(Path(question["folder"], "config.json").read_text(encoding="utf-8"))
    hub._download_json = lambda *_: config
    hub._params_from_index = lambda *_: question["parameters"]
    if question["cache_type"] != "f16":
        return {"failed": "knows f16, bf16 and fp8 caches only"}
    machine = question["hardware"]
    fit = json.loads(
        ridgepoint.fit(
            question["hub"],
            "rtx4090-24gb" if machine else "h200-141gb",
            count=1 if machine else 8,
            engine="llamacpp",
            dtype="q4_k_m" if question["quantization"] == "Q4_K_M" else "q4_0",
            ctx=question["context"],
            prompt=512,
            as_json=True,
        )
    )
    memory, speed = fit["memory"], fit["speed"]
    cache = fit["capacity"]["bytes_per_seq"] * question["parallel"]
    said: dict[str, Any] = {
        "weights_bytes": int(memory["weights_bytes"]["best"]),
        "cache_bytes": int(cache),
        "why": {"flags": "gives none for llama.cpp"},
    }
    if question["quantization"] != "Q4_K_M":
        said["note"] = f"asked as q4_0: {question['quantization']} is unknown to it"
    if machine:
        overhead = memory["overhead_bytes"]["best"]
        said["compute_bytes"] = int(overhead)
        said["total_bytes"] = said["weights_bytes"] + said["cache_bytes"] + int(overhead)
        said["fits"] = fit["capacity"]["max_sequences"]["best"] >= question["parallel"]
        rate = speed["decode_tok_s"]
        said["decode_tokens_per_second"] = {
            "low": rate["low"], "expected": rate["best"], "high": rate["high"]
        }  # fmt: skip
        if not said["fits"]:
            said["note"] = "GPU memory only; its speed supposes that the model were in there"
    else:
        said["why"]["total_bytes"] = "its overhead belongs to a GPU: none named here"
        said["why"]["compute_bytes"] = said["why"]["total_bytes"]
    return said
