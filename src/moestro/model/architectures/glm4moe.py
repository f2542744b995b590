"""GLM-4.5 and relatives: a dense first block, sigmoid gating, an MTP block."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers

FAMILY = Family(
    gguf=("glm4moe",),
    hugging_face={"glm4_moe": "glm4moe"},
    layers=grouped_query_layers,
    gating="sigmoid",
)
