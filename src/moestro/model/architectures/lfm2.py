"""LFM2 and LFM2-MoE: short convolutions in most blocks, attention in some.

A convolution keeps the last `l_cache - 1` inputs of each channel: `hidden · (l_cache - 1)` values
per sequence. Blocks without key-value heads are the convolutions.
"""

from __future__ import annotations

from moestro.model.architectures.family import (
    STATE_VALUE_BYTES,
    Family,
    block_counts,
    grouped_query_layers,
)
from moestro.model.cache import Layer
from moestro.model.metadata import Hyperparameters
from moestro.model.roles import Role, rules


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    trunk, _ = block_counts(hyper)
    kv_heads = hyper.per_layer("attention.head_count_kv", trunk)
    hidden = hyper.integer("embedding_length")
    taps = hyper.integer("shortconv.l_cache", most=1 << 16)
    if kv_heads is None or hidden is None or not taps:
        return None
    return grouped_query_layers(
        hyper,
        recurrent=[heads == 0 for heads in kv_heads],
        state_bytes=hidden * (taps - 1) * STATE_VALUE_BYTES,
    )


FAMILY = Family(
    gguf=("lfm2", "lfm2moe"),
    hugging_face={"lfm2": "lfm2", "lfm2_moe": "lfm2moe"},
    layers=layers,
    gating="sigmoid",
    roles=rules((r"conv\.", Role.RECURRENT)),
)
