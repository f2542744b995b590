"""Any other architecture: sizes and roles hold, the cache can only be assumed.

Plain grouped queries are assumed where the file speaks of nothing else. Where it has keys of
windows, latents, states or convolutions, the cache stays unknown.
"""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers
from moestro.model.cache import Layer
from moestro.model.metadata import Hyperparameters

_UNUSUAL = (
    "ssm.",
    "wkv.",
    "kda.",
    "shortconv.",
    "attention.sliding_window",
    "attention.kv_lora_rank",
    "attention.compress_ratios",
    "attention.indexer.",
    "attention.recurrent_layers",
    "attention.shared_kv_layers",
    "attention.layer_indices",
    "attention.chunk",
    "token_shift_count",
    "full_attention_interval",
    "hyper_connection.",
    "num_loops",
    "ple.",
)


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    if any(key.startswith(_UNUSUAL) for key in hyper.keys()):  # noqa: SIM118 — not a dict
        return None
    return grouped_query_layers(hyper)


FAMILY = Family(gguf=(), hugging_face={}, layers=layers, gating="unknown")
