"""Qwen1.5-MoE and Qwen2-MoE: one wide shared expert behind a gate of its own."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers

FAMILY = Family(
    gguf=("qwen2moe",),
    hugging_face={"qwen2_moe": "qwen2moe"},
    layers=grouped_query_layers,
)
