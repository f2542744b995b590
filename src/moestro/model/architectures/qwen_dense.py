"""Qwen2 and Qwen3 without experts: grouped queries in every block."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers

FAMILY = Family(
    gguf=("qwen2", "qwen3"),
    hugging_face={"qwen2": "qwen2", "qwen3": "qwen3"},
    layers=grouped_query_layers,
)
