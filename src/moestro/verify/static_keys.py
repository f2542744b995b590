"""What two files of one model say in their keys: hyperparameters and tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from moestro.findings import Finding, Severity
from moestro.model.digests import Plain
from moestro.verify.fingerprint import Fingerprint
from moestro.words import shown

FLOAT_TOLERANCE = 1e-5
"""Converters write some numbers in 32 bits and some in 64."""

_LIST = 4
_COMPARED_ELSEWHERE = {"vocab_size", "block_count", "nextn_predict_layers", "expert_gating_func"}
_SELECTION = (
    "expert_weights_",
    "expert_group_",
    "router_logit_softcapping",
    "moe_every_n_layers",
)
_ONLY_LIMITS = {"context_length"}

_NEUTRAL: dict[str, tuple[Plain, ...]] = {
    "rope.freq_base": (10000.0,),
    "rope.scaling.type": ("none", "linear"),
    "rope.scaling.factor": (0, 1),
    "rope.scale_linear": (0, 1),
    "expert_weights_scale": (0, 1),
    "expert_weights_norm": (False,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "attention.scale": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.clamp_kqv": (0,),
    "attention.causal": (True,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "router_logit_softcapping": (0,),
}
"""Values that mean the same as no key at all, as the engine reads them."""

_DECIDES_TEXT = ("ggml.model", "ggml.pre", "ggml.tokens", "ggml.merges", "ggml.scores",
                 "ggml.bos_token_id", "ggml.add_bos_token", "ggml.add_space_prefix",
                 "ggml.remove_extra_whitespaces", "ggml.precompiled_charsmap")  # fmt: skip
"""Keys that decide which tokens a text becomes."""
_DECIDES_END = ("ggml.token_type", "ggml.eos_token_id", "ggml.eot_token_id", "ggml.eom_token_id")
"""Keys that decide where an answer ends and what is printed of it. Quantizers correct them."""
_ABSENT_PRE: Plain = "default"


def keys_findings(reference: Fingerprint, candidate: Fingerprint) -> list[Finding]:
    """Gating, rope, and every other number that the two files do not agree on."""
    found = []
    gating, rope, other, limits, unclear = list[str](), list[str](), list[str](), list[str](), []
    known = {reference.gating, candidate.gating} - {None, "unknown"}
    if len(known) == 2:
        gating.append(f"the router scores by {reference.gating} in the reference, "
                      f"by {candidate.gating} here")  # fmt: skip
    for key in sorted({*reference.keys, *candidate.keys} - _COMPARED_ELSEWHERE):
        pair = reference.keys.get(key), candidate.keys.get(key)
        if _same(key, *pair):
            continue
        line = f"{shown(key)}: {_said(pair[0])} in the reference, {_said(pair[1])} here"
        if None in pair and key not in _NEUTRAL:
            unclear.append(line)
        elif key.startswith(_SELECTION):
            gating.append(line)
        elif key.startswith("rope."):
            rope.append(line)
        else:
            (limits if key in _ONLY_LIMITS else other).append(line)
    blocks = _trunk_blocks(reference), _trunk_blocks(candidate)
    if blocks[0] != blocks[1]:
        other.append(f"blocks: {_said(blocks[0])} in the reference, {_said(blocks[1])} here")
    again = "Convert the model again from its source, or take another file of it."
    for severity, code, title, lines in (
        (Severity.FAIL, "gating-differs", "Experts are chosen or weighed differently", gating),
        (Severity.FAIL, "rope-differs", "Positions are encoded differently", rope),
        (Severity.FAIL, "metadata-differs", "The model is described differently", other),
        (Severity.WARN, "metadata-differs", "The context is said to be of another length", limits),
        (Severity.INFO, "metadata-differs", "Only one of the files has some keys", unclear),
    ):
        if lines:
            fix = again if severity is not Severity.INFO else None
            found.append(Finding(severity, code, title, _joined(lines), fix))
    return found


def tokenizer_findings(reference: Fingerprint, candidate: Fingerprint) -> list[Finding]:
    """Whether a text becomes the same tokens."""
    sizes = reference.vocabulary, candidate.vocabulary
    if None not in sizes and sizes[0] != sizes[1]:
        return [
            Finding(
                Severity.FAIL,
                "vocabulary-differs",
                "The files have vocabularies of different size",
                f"{sizes[0]:,} tokens in the reference, {sizes[1]:,} here",
                "Take a reference that was made from the same model.",
            )
        ]
    text = _tokenizer_differences(reference.tokenizer, candidate.tokenizer, _DECIDES_TEXT)
    end = _tokenizer_differences(reference.tokenizer, candidate.tokenizer, _DECIDES_END)
    found = []
    if text:
        found.append(
            Finding(
                Severity.FAIL,
                "tokenizer-differs",
                "The tokenizer is not the reference's: a text becomes other tokens",
                _joined(text),
                "Convert the model again with its own tokenizer, or take another file of it.",
            )
        )
    if end:
        found.append(
            Finding(
                Severity.WARN,
                "tokenizer-differs",
                "Special tokens differ: answers may end elsewhere",
                _joined(end),
                "Compare with the model's own generation_config.json; corrections are common.",
            )
        )
    return found


def _tokenizer_differences(
    reference: Mapping[str, Plain], candidate: Mapping[str, Plain], keys: Iterable[str]
) -> list[str]:
    lines = []
    for key in keys:
        pair = reference.get(key), candidate.get(key)
        if key == "ggml.pre":
            pair = pair[0] or _ABSENT_PRE, pair[1] or _ABSENT_PRE
        elif None in pair and key != "ggml.merges":
            continue  # the kind of vocabulary decides, which is compared itself
        if not _equal(*pair):
            name = key.removeprefix("ggml.").replace("_", " ")
            if any(_is_digest(side) for side in pair):
                lines.append(f"the {name} are others")
            else:
                lines.append(f"{name}: {_said(pair[0])} in the reference, {_said(pair[1])} here")
    return lines


def _trunk_blocks(model: Fingerprint) -> Plain | None:
    blocks, mtp = model.keys.get("block_count"), model.keys.get("nextn_predict_layers", 0)
    if not isinstance(blocks, int) or not isinstance(mtp, int):
        return None
    return max(blocks - mtp, 0)


def _same(key: str, first: Plain | None, second: Plain | None) -> bool:
    neutral = _NEUTRAL.get(key)
    if neutral is not None:
        first = None if _is_one_of(first, neutral) else first
        second = None if _is_one_of(second, neutral) else second
    return _equal(first, second)


def _is_one_of(value: Plain | None, values: tuple[Plain, ...]) -> bool:
    return value is not None and any(_equal(value, other) for other in values)


def _equal(first: Plain | None, second: Plain | None) -> bool:
    """Numbers up to rounding. A number stands for a list of it, and a list may go on for blocks
    that the other file does not have."""
    if isinstance(first, tuple) and isinstance(second, tuple):
        if not first or not second:
            return first == second
        return all(_equal(a, b) for a, b in zip(first, second, strict=False))
    if isinstance(first, tuple) or isinstance(second, tuple):
        many, one = (first, second) if isinstance(first, tuple) else (second, first)
        assert isinstance(many, tuple)
        return bool(many) and all(_equal(member, one) for member in many)
    if isinstance(first, int | float) and isinstance(second, int | float):
        if math.isnan(first) or math.isnan(second):
            return math.isnan(first) and math.isnan(second)
        return math.isclose(first, second, rel_tol=FLOAT_TOLERANCE)
    return first == second


def _is_digest(value: Plain | None) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")


def _said(value: Plain | None) -> str:
    if value is None:
        return "not given"
    if _is_digest(value):
        return "a long list"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return shown(", ".join(map(str, value)), 40)
    return shown(str(value), 40)


def _joined(lines: list[str]) -> str:
    rest = len(lines) - _LIST
    return "; ".join(lines[:_LIST]) + (f"; and {rest} more" if rest > 0 else "")
