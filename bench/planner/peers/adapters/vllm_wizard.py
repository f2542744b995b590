"""vllm-wizard sizes vLLM from a `config.json`; AWQ is its nearest word for a 4-bit file."""

from __future__ import annotations

import importlib
from typing import Any

GIB = 2**30


def answer(question: dict[str, Any]) -> dict[str, Any]:
    inputs = importlib.import_module("vllm_wizard.schemas.inputs")
    planner = importlib.import_module("vllm_wizard.planning.planner")
    machine = question["hardware"]
    if question["cache_type"] != "f16":
        return {"failed": "vLLM has no such cache type"}
    request = inputs.PlanRequest(
        model=inputs.ModelInput(
            model=question["folder"],
            quantization="awq",
            kv_cache_dtype="fp16",
            max_model_len=question["context"],
        ),
        hardware=inputs.HardwareInput(
            gpu=machine["gpu"] if machine else "H200",
            vram_gb=float(machine["gpu_label_gb"]) if machine else 1e6,
        ),
        workload=inputs.WorkloadInput(concurrency=question["parallel"]),
    )
    plan = planner.run_plan(request)
    sizes = plan.feasibility
    said: dict[str, Any] = {
        "weights_bytes": int(sizes.weights_gb * GIB),
        "cache_bytes": int(sizes.kv_cache_gb * GIB),
        "why": {"compute_bytes": "a constant overhead of 1 GiB or 2 % of the GPU"},
    }
    if machine:
        low, high = plan.performance.decode_toks_per_s_range
        said["total_bytes"] = int((sizes.weights_gb + sizes.kv_cache_gb + sizes.overhead_gb) * GIB)
        said["fits"] = sizes.fits
        said["decode_tokens_per_second"] = {"low": low, "high": high}
        said["flags"] = " ".join(plan.artifacts.serve_command.replace("\\\n", " ").split())
    else:
        said["why"]["total_bytes"] = "its overhead is a share of a GPU: none named here"
    return said
