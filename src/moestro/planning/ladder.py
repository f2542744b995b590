"""What to give up, step by step, when the engine found less memory than its plan expected."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from moestro.planning.settings import Settings

LEAST_UBATCH = 128
LEAST_CONTEXT = 2048
EXPERT_STEP = 4
"""The part of the blocks, one over it, whose experts move to the host in one step."""


def next_step(
    settings: Settings,
    *,
    expert_blocks: int,
    gpus: bool,
    fixed: Collection[str] = (),
) -> tuple[Settings, str] | None:
    """Settings that need less memory, and a sentence that says what is given up; None at the end.

    The order is by what a user would notice last: a smaller `ubatch` reads prompts a little slower;
    a cache in q8_0 changes answers hardly; experts on the host (where there is a GPU) write slower;
    a shorter context refuses long requests. What is in `fixed` was asked for and stays: names of
    settings, as in `Settings`. `expert_blocks` is how many blocks have routed experts.
    """
    if settings.ubatch > LEAST_UBATCH and "ubatch" not in fixed:
        ubatch = max(settings.ubatch // 2, LEAST_UBATCH)
        said = f"Prompts are read {ubatch} tokens at a time instead of {settings.ubatch}."
        return replace(settings, ubatch=ubatch), said
    if settings.prompt_cache_bytes and "prompt_cache_bytes" not in fixed:
        return (
            replace(settings, prompt_cache_bytes=0),
            "Prompts of finished conversations are not kept any more.",
        )
    types = {settings.cache_type_k, settings.cache_type_v}
    if (
        types & {"f32", "f16", "bf16"}
        and settings.flash_attention != "off"
        and not {"cache_type_k", "cache_type_v"} & set(fixed)
    ):
        return (
            replace(settings, cache_type_k="q8_0", cache_type_v="q8_0"),
            "The cache is kept in q8_0 instead of f16: half of it, and answers change hardly.",
        )
    if gpus and settings.cpu_expert_layers < expert_blocks and "cpu_expert_layers" not in fixed:
        step = max(expert_blocks // EXPERT_STEP, 1)
        layers = min(settings.cpu_expert_layers + step, expert_blocks)
        return (
            replace(settings, cpu_expert_layers=layers),
            f"The experts of {layers} of {expert_blocks} blocks stay in host memory instead of "
            f"{settings.cpu_expert_layers}: slower answers.",
        )
    if settings.context > LEAST_CONTEXT and "context" not in fixed:
        context = max(settings.context // 2, LEAST_CONTEXT)
        return (
            replace(settings, context=context),
            f"A stream reaches {context} tokens instead of {settings.context}.",
        )
    return None
