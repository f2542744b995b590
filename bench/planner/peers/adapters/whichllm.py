"""whichllm's `plan` and its simulated GPUs, by the functions under the command.

The command itself does not start with the newest `typer` that its own requirements allow, and it
always asks the hub. What the hub would say of the repository and of the GGUF comes from here.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any


def answer(question: dict[str, Any]) -> dict[str, Any]:
    parser = importlib.import_module("whichllm.models.parser")
    types = importlib.import_module("whichllm.models.types")
    vram = importlib.import_module("whichllm.engine.vram")
    quantization = importlib.import_module("whichllm.engine.quantization")
    config = json.loads(Path(question["folder"], "config.json").read_text(encoding="utf-8"))
    model = parser._parse_model(
        {
            "id": question["hub"],
            "safetensors": {"total": question["parameters"]},
            "config": config,
            "tags": [],
        }
    )
    if model is None:
        raise RuntimeError("the repository's metadata is not enough for it")
    variant = types.GGUFVariant(
        Path(question["gguf"]).name, question["quantization"], question["file_bytes"]
    )
    tokens = question["context"] * question["parallel"]  # no word for parallel streams
    said: dict[str, Any] = {
        "weights_bytes": quantization.estimate_weight_bytes(model, variant),
        "why": {"flags": "gives none that place a model"},
    }
    if question["cache_type"] == "f16":
        said["cache_bytes"] = vram.estimate_kv_cache(model, tokens)
        said["compute_bytes"] = vram._activation_bytes(model, tokens)
        said["total_bytes"] = vram.estimate_vram(model, variant, tokens)
    else:
        said["why"] |= dict.fromkeys(("cache_bytes", "total_bytes"), "knows an f16 cache only")
    machine = question["hardware"]
    if machine:
        simulator = importlib.import_module("whichllm.hardware.gpu_simulator")
        compatibility = importlib.import_module("whichllm.engine.compatibility")
        performance = importlib.import_module("whichllm.engine.performance")
        hardware_types = importlib.import_module("whichllm.hardware.types")
        gpu = simulator.create_synthetic_gpu(machine["gpu"])
        hardware = hardware_types.HardwareInfo(gpus=[gpu], ram_bytes=machine["ram_bytes"])
        result = compatibility.check_compatibility(model, variant, hardware, tokens)
        rate = performance.estimate_tok_per_sec(model, variant, gpu, result.fit_type)
        _, band, _ = performance.estimate_speed_uncertainty(
            model, variant, gpu, result.fit_type, rate
        )
        said["fits"] = result.can_run
        said["note"] = f"{result.fit_type}, {result.offload_ratio:.0%} in host memory"
        if result.can_run:
            said["decode_tokens_per_second"] = {
                "low": band[0] if band else None,
                "expected": rate,
                "high": band[1] if band else None,
            }
    return said
