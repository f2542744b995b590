"""OLMoE: experts in every block, as many key-value heads as query heads."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers

FAMILY = Family(gguf=("olmoe",), hugging_face={"olmoe": "olmoe"}, layers=grouped_query_layers)
