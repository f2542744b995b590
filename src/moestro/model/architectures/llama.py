"""Dense decoders with grouped queries, and Mixtral, which is the same with experts.

Old Mixtral conversions keep each expert in a tensor of its own (`ffn_gate.3.weight`).
"""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers

FAMILY = Family(
    gguf=("llama",),
    hugging_face={"llama": "llama", "mixtral": "llama", "mistral": "llama"},
    layers=grouped_query_layers,
)
