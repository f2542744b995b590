"""Qwen3.5/3.6 and Qwen3-Next: three Gated DeltaNet blocks for each block of full attention.

State of a DeltaNet block per sequence: one `d × d` matrix for each value head, and the last
`kernel - 1` inputs of the convolution over queries, keys and values:

    n_v · d · d + (kernel - 1) · (n_v · d + 2 · n_k · d)    values
"""

from __future__ import annotations

from moestro.model.architectures.family import (
    STATE_VALUE_BYTES,
    Family,
    block_counts,
    grouped_query_layers,
)
from moestro.model.cache import Layer
from moestro.model.metadata import MAX_LAYERS, Hyperparameters
from moestro.model.roles import Role, rules

DEFAULT_INTERVAL = 4
_MOST = 1 << 24


def recurrent_blocks(hyper: Hyperparameters) -> list[bool]:
    """Which trunk blocks are DeltaNet blocks."""
    trunk, _ = block_counts(hyper)
    listed = hyper.flags("attention.recurrent_layers", trunk)
    if listed is not None:
        return listed
    interval = hyper.integer("full_attention_interval", most=MAX_LAYERS) or DEFAULT_INTERVAL
    return [(index + 1) % interval != 0 for index in range(trunk)]


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    kernel = hyper.integer("ssm.conv_kernel", most=1 << 16)
    inner = hyper.integer("ssm.inner_size", most=_MOST)
    state = hyper.integer("ssm.state_size", most=_MOST)
    groups = hyper.integer("ssm.group_count", most=_MOST)
    if not kernel or not inner or not state or groups is None:
        return None
    values = state * inner + (kernel - 1) * (inner + 2 * groups * state)
    return grouped_query_layers(
        hyper, recurrent=recurrent_blocks(hyper), state_bytes=values * STATE_VALUE_BYTES
    )


FAMILY = Family(
    gguf=("qwen35", "qwen35moe", "qwen3next"),
    hugging_face={
        "qwen3_5": "qwen35",
        "qwen3_5_text": "qwen35",
        "qwen3_5_moe": "qwen35moe",
        "qwen3_5_moe_text": "qwen35moe",
        "qwen3_next": "qwen3next",
    },
    layers=layers,
    # In this family only the DeltaNet blocks fuse queries, keys and values, or have a gate tensor.
    roles=rules((r"attn_qkv\.|attn_gate\.", Role.RECURRENT)),
)
