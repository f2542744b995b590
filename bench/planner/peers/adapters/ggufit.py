"""ggufit sizes by name from its own catalogue, or from the hub for models it does not list.

Host bandwidth is its own formula for the question's memory channels.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

GIB = 2**30


def answer(question: dict[str, Any]) -> dict[str, Any]:
    calculator = importlib.import_module("ggufit.calculator")
    catalogue = importlib.import_module("ggufit.models")
    hub = importlib.import_module("ggufit.hub")
    gpus = importlib.import_module("ggufit.gpu")
    note = "its own entry"
    _, model = catalogue.find_model(question["hub"])
    if model is None:
        _, model = catalogue.find_model(question["model"])
    if model is None:
        config = json.loads(Path(question["folder"], "config.json").read_text(encoding="utf-8"))
        model = hub.to_catalogue_record(
            hub.normalize(question["hub"], config, question["parameters"])
        )
        note = "as fetched from the hub"
        if model.get("_incomplete"):
            raise RuntimeError(f"incomplete for it: {', '.join(model['_incomplete'])}")
    bits = {"f16": 16, "q8_0": 8}[question["cache_type"]]
    users, tokens = question["parallel"], question["context"]
    weights = calculator.model_size_gb(model["params_billion"], "q4")
    cache = calculator.kv_cache_gb(model, tokens, users, bits)
    said: dict[str, Any] = {
        "weights_bytes": int(weights * GIB),
        "cache_bytes": int(cache * GIB),
        "total_bytes": int((weights * calculator.overhead_multiplier(weights) + cache) * GIB),
        "why": {"compute_bytes": "a constant 1 GiB and 7.6 % of the weights inside its sum"},
        "note": note,
    }
    machine = question["hardware"]
    if machine:
        gpu = gpus.gpu_from_name(machine["gpu"])
        video, _, _ = calculator.vram_budget(gpu.vram_total_gb)
        host, _ = calculator.ram_budget(machine["ram_bytes"] / GIB)
        plan = calculator.plan_offload(
            model, "q4", tokens, host, video,
            calculator.effective_bandwidth(machine["ram_channels"], machine["ram_megatransfers"]),
            gpu.bandwidth_gbps, users, bits,
        )  # fmt: skip
        said["fits"] = plan.fits
        if plan.fits:
            said["flags"] = f"-ngl {plan.gpu_layers}"
            said["gpu_layers"] = plan.gpu_layers
            said["cpu_expert_layers"] = 0
            said["gpu_bytes"] = int(plan.vram_needed_gb * GIB)
            said["decode_tokens_per_second"] = {
                "low": plan.speed.low, "expected": plan.speed.mid, "high": plan.speed.high
            }  # fmt: skip
    return said
