"""One small file per architecture family; each has a `FAMILY`.

To add one: write its file, name it here, add its shape to `tests/shapes`.
"""

from __future__ import annotations

from moestro.model.architectures import (
    deepseek2,
    deepseek4,
    gemma3,
    glm4moe,
    gpt_oss,
    granitemoe,
    lfm2,
    llama,
    olmoe,
    qwen2moe,
    qwen3moe,
    qwen35,
    qwen_dense,
    unknown,
)
from moestro.model.architectures.family import Family, block_counts

FAMILIES: tuple[Family, ...] = tuple(
    module.FAMILY
    for module in (
        deepseek2,
        deepseek4,
        gemma3,
        glm4moe,
        gpt_oss,
        granitemoe,
        lfm2,
        llama,
        olmoe,
        qwen2moe,
        qwen3moe,
        qwen35,
        qwen_dense,
    )
)
UNKNOWN = unknown.FAMILY
_BY_GGUF = {name: family for family in FAMILIES for name in family.gguf}
_BY_HUGGING_FACE = {name: family for family in FAMILIES for name in family.hugging_face}


def family_of_gguf(architecture: str) -> Family:
    """The family of a `general.architecture`, or `UNKNOWN`."""
    return _BY_GGUF.get(architecture, UNKNOWN)


def family_of_hugging_face(model_type: str) -> Family:
    """The family of a config's `model_type`, or `UNKNOWN`."""
    return _BY_HUGGING_FACE.get(model_type, UNKNOWN)


__all__ = [
    "FAMILIES",
    "UNKNOWN",
    "Family",
    "block_counts",
    "family_of_gguf",
    "family_of_hugging_face",
]
