"""What a llama-server says of its own settings: its log, `/props` and `/slots`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from moestro.planning import Settings
from moestro.units import MIB

STEP_TOKENS = 256
"""A stream's share of the cache is rounded up to this."""

_LINES = {
    "n_ctx": r"llama_context: n_ctx\s+= (\d+)",
    "streams": r"llama_context: n_seq_max\s+= (\d+)",
    "batch": r"llama_context: n_batch\s+= (\d+)",
    "ubatch": r"llama_context: n_ubatch\s+= (\d+)",
    "unified": r"llama_context: kv_unified\s+= (\w+)",
    "flash_attention": r"llama_context: flash_attn\s+= (\w+)",
    "outputs": r"llama_context: n_outputs_max\s+= (\d+)",
    "outputs_per_stream": r"llama_context: n_outputs_max_per_seq = (\d+)",
    "threads": r"n_threads = (\d+)",
    "threads_batch": r"n_threads_batch = (\d+)",
    "cache_type_k": r"llama_kv_cache: size =.* K \((\w+)\)",
    "cache_type_v": r"llama_kv_cache: size =.* V \((\w+)\)",
    "prompt_cache_mib": r"prompt cache is enabled, size limit: (\d+) MiB",
    "checkpoints": r"context checkpoints enabled, max = (\d+)",
    "expert_cache_mib": r"MoE cache size = +([\d.]+) MiB",
    "layers_on_gpus": r"offloaded (\d+)/\d+ layers to GPU",
}
_SAYS_NOT = {
    "prompt_cache_mib": "prompt cache is disabled",
    "checkpoints": "context checkpoints disabled",
}
_IDLE = "idle slots will be saved to prompt cache"


def reported(log: str, props: Any, slots: Any) -> dict[str, Any]:
    """Names as in `wanted`. What is not to be seen is not there."""
    found: dict[str, Any] = {}
    for name, pattern in _LINES.items():
        if (match := re.search(pattern, log)) is not None:
            text = match[1]
            found[name] = int(text) if text.isdigit() else text
        elif _SAYS_NOT.get(name, "\0") in log:
            found[name] = 0
    if "prompt_cache_mib" in found:
        found["idle_slots"] = _IDLE in log
    found["total_slots"] = props["total_slots"]
    found["stream_context"] = props["default_generation_settings"]["n_ctx"]
    found["slot_contexts"] = sorted({slot["n_ctx"] for slot in slots})
    found["speculative"] = any(slot["speculative"] for slot in slots)
    found["name"] = props["model_alias"]
    found["model"] = props["model_path"]
    found["metrics"] = props["endpoint_metrics"]
    found["ui"] = props["ui"]
    return found


def wanted(
    settings: Settings, *, name: str, model: str, accelerated: bool, trained_context: int
) -> dict[str, Any]:
    """The same of a plan."""
    total = settings.context * settings.parallel
    share = total if settings.unified else settings.context
    share = -(-share // STEP_TOKENS) * STEP_TOKENS
    reachable = min(share, trained_context)
    prompt_cache_mib = -(-settings.prompt_cache_bytes // MIB)
    return {
        "n_ctx": share * (1 if settings.unified else settings.parallel),
        "streams": settings.parallel,
        "batch": settings.tokens_at_once(accelerated=accelerated),
        "ubatch": settings.ubatch,
        "unified": str(settings.unified).lower(),
        "flash_attention": _flash_attention(settings),
        "outputs": settings.outputs,
        "outputs_per_stream": 1 + settings.mtp_depth,
        "threads": settings.threads,
        "threads_batch": settings.threads,
        "cache_type_k": settings.cache_type_k,
        "cache_type_v": settings.cache_type_v,
        "prompt_cache_mib": prompt_cache_mib,
        "checkpoints": settings.context_checkpoints,
        "idle_slots": prompt_cache_mib > 0,
        "total_slots": settings.parallel,
        "stream_context": reachable,
        "slot_contexts": [reachable],
        "speculative": settings.mtp_depth > 0,
        "name": name,
        "model": model,
        "metrics": True,
        "ui": False,
    }


def _flash_attention(settings: Settings) -> str:
    """The engine cannot do without where values are quantized."""
    if settings.flash_attention == "auto":
        return "auto" if settings.cache_type_v in ("f32", "f16", "bf16") else "enabled"
    return "enabled" if settings.flash_attention == "on" else "disabled"


def devices_of_layers(log: str) -> list[str]:
    """The device of each block and of the head, in order; CPU, or a GPU's name in the log."""
    lines = re.findall(r"load_tensors: layer +(\d+) assigned to device ([^,\s]+)", log)
    return [device for _, device in sorted(((int(layer), device) for layer, device in lines))]


def experts_on_host(log: str) -> set[int]:
    """The blocks whose experts an override sent to main memory."""
    lines = re.findall(r"tensor blk\.(\d+)\.ffn_\w+_exps.* buffer type overridden to CPU", log)
    return {int(block) for block in lines}


def cache_devices(log: str) -> set[str]:
    """Where KV caches and recurrent states lie."""
    return set(re.findall(r"layer +\d+: dev = (\S+)", log))


def differing(wants: dict[str, Any], reports: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if wants.get(name) != reports.get(name)]
