"""Granite MoE, with or without a shared expert. Tied embeddings."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers
from moestro.model.roles import Role, rules

FAMILY = Family(
    gguf=("granitemoe",),
    hugging_face={"granitemoe": "granitemoe", "granitemoeshared": "granitemoe"},
    layers=grouped_query_layers,
    roles=rules(
        (r"block_sparse_moe\.router\.", Role.ROUTER),
        (r"block_sparse_moe\.(input|output)_linear\.", Role.ROUTED_EXPERTS),
    ),
)
