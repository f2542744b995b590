"""Contradictions inside a model file that make it load wrongly, or not at all.

Both known ones come from conversions: a checkpoint whose multi-token prediction tensors were
dropped on the way while its config still declares them, and a DeepSeek-V3 style router whose
sigmoid got lost, so that an engine silently takes a softmax.
"""

from __future__ import annotations

from collections.abc import Collection

from moestro.findings import Finding, Severity


def mtp_finding(
    declared: int, first_layer: int, layers_with_tensors: Collection[int]
) -> Finding | None:
    """`declared` MTP blocks follow the trunk's `first_layer` blocks; some have no tensors."""
    wanted = range(first_layer, first_layer + declared)
    missing = [layer for layer in wanted if layer not in layers_with_tensors]
    if not missing:
        return None
    return Finding(
        Severity.FAIL,
        "mtp-tensors-missing",
        "Multi-token prediction is declared, but its tensors are missing",
        f"{declared} MTP {'block' if declared == 1 else 'blocks'} declared, none found for "
        f"{'block' if len(missing) == 1 else 'blocks'} {', '.join(map(str, missing))}",
        "Convert again from a checkpoint that still has its mtp tensors, or remove "
        "nextn_predict_layers (and the block from block_count) to use the trunk alone.",
    )


def gating_finding(gating: str | None, *, has_expert_bias: bool) -> Finding | None:
    """A bias per expert (`exp_probs_b`) belongs to sigmoid gating: balancing without an auxiliary
    loss. `gating` is what the file says; None if it is silent, which engines take as softmax."""
    if not has_expert_bias or gating not in (None, "softmax"):
        return None
    said = "says softmax" if gating else "does not say how the router scores"
    return Finding(
        Severity.FAIL,
        "gating-function-lost",
        "The router's sigmoid was lost: experts would be chosen by a softmax",
        f"the file has a bias per expert, as sigmoid routers do, but {said}",
        'Convert again with "scoring_func": "sigmoid" in config.json '
        "(in GGUF: expert_gating_func = 2).",
    )


def unknown_family_finding(architecture: str, *, cache_assumed: bool) -> Finding:
    told = (
        "the cache is computed as plain attention"
        if cache_assumed
        else "what the cache costs could not be told"
    )
    return Finding(
        Severity.INFO,
        "architecture-unknown",
        f"moestro does not know the architecture {architecture}",
        f"sizes are exact; {told}",
        "The engine may run it all the same; its dry run tells the memory exactly.",
    )


def experts_unclear_finding(count: int) -> Finding:
    return Finding(
        Severity.WARN,
        "experts-used-unknown",
        "The file does not say how many experts a token uses",
        f"{count} experts; all of them are counted as active",
        "Convert again with the experts-per-token key in config.json.",
    )


def offset_gap_finding(tensor: str, gap_bytes: int) -> Finding:
    return Finding(
        Severity.WARN,
        "tensor-gap",
        "There is unused space between tensors, which some engines refuse",
        f"{gap_bytes:,} bytes before {tensor}",
        "Convert or download the file again.",
    )
