"""Gemma 3: of six blocks five see a window. The embedding table is also the output head."""

from __future__ import annotations

from moestro.model.architectures.family import Family, grouped_query_layers, window_pattern
from moestro.model.cache import Layer
from moestro.model.metadata import Hyperparameters

PERIOD = 6


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    return grouped_query_layers(hyper, windowed=window_pattern(hyper, PERIOD))


FAMILY = Family(
    gguf=("gemma3",), hugging_face={"gemma3": "gemma3", "gemma3_text": "gemma3"}, layers=layers
)
