"""gpt-oss: every other block sees a window of 128 tokens; the softmax comes after the choice of
experts, over the chosen ones only."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers, window_pattern
from moestro.model.cache import Layer
from moestro.model.metadata import Hyperparameters
from moestro.model.roles import Role, rules

PERIOD = 2


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    return grouped_query_layers(hyper, windowed=window_pattern(hyper, PERIOD))


FAMILY = Family(
    gguf=("gpt-oss",),
    hugging_face={"gpt_oss": "gpt-oss"},
    layers=layers,
    gating="softmax-of-chosen",
    roles=rules((r"post_attention_norm|input_layernorm", Role.OTHER)),
)
