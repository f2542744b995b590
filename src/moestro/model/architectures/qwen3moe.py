"""Qwen3 with experts: grouped queries, no shared expert."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers

FAMILY = Family(
    gguf=("qwen3moe",),
    hugging_face={"qwen3_moe": "qwen3moe"},
    layers=grouped_query_layers,
)
