"""What follows from settings for the engine: texts that `params` and the dry run must share."""

from __future__ import annotations

from collections.abc import Sequence

EXPERT_TENSORS = r"ffn_(up|down|gate|gate_up)_(ch|)exps"
"""As `LLM_FFN_EXPS_REGEX` of the engine's own `--n-cpu-moe`."""


def host_tensors(blocks: Sequence[int]) -> list[str]:
    """Patterns for the routed experts of `blocks`, which stay in host memory.

    One for each block: a list of overrides is separated by commas, and may not contain any.
    """
    return [rf"blk\.{block}\.{EXPERT_TENSORS}" for block in blocks]
