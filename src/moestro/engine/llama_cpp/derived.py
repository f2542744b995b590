"""What follows from settings for the engine: figures that `params` and the dry run must share."""

from __future__ import annotations

from collections.abc import Sequence

from moestro.planning.settings import Settings

ACCELERATED_BATCH = 2048
EXPERT_TENSORS = r"ffn_(up|down|gate|gate_up)_(ch|)exps"
"""As `LLM_FFN_EXPS_REGEX` of the engine's own `--n-cpu-moe`."""


def outputs(settings: Settings) -> int:
    """One next token of every stream, drafts included."""
    return settings.parallel * (1 + settings.mtp_depth)


def batch(settings: Settings, *, accelerated: bool) -> int:
    """Tokens that the engine takes at once.

    A stream's next token waits for the whole batch that holds another stream's prompt. On a CPU one
    of 2048 tokens takes seconds and is no faster than its parts; several GPUs need it whole. Below
    one output of every stream, drafts included, the engine ends on a failed assertion.
    """
    if settings.batch is not None:
        return max(settings.batch, outputs(settings))
    return max(ACCELERATED_BATCH if accelerated else 0, settings.ubatch, outputs(settings))


def host_tensors(blocks: Sequence[int]) -> list[str]:
    """Patterns for the routed experts of `blocks`, which stay in host memory.

    One for each block: a list of overrides is separated by commas, and may not contain any.
    """
    return [rf"blk\.{block}\.{EXPERT_TENSORS}" for block in blocks]
