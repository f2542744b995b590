"""Which tensors a file lacks, and what types it stores them in: no weights needed."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from moestro.engine.llama_cpp.row_samples import is_router
from moestro.findings import Finding, Severity
from moestro.model.ggml_types import BY_NAME
from moestro.model.roles import Role
from moestro.verify.fingerprint import Fingerprint, TensorPrint
from moestro.verify.unit_errors import comparable, row_cosines, said_of_cosines, unit_errors
from moestro.words import shown

ROUTER_LEAST_BITS = 16
"""llama.cpp's quantizer keeps routers as they are; what a checkpoint has is BF16 or more."""
ROUTER_WARN_BITS = 8
LOW_BITS, LOW_BITS_RATIO = 3.0, 1.4
"""A layer's experts are low where they have fewer bits per weight than the first, and those of the
middle layer at least the second times as many. Recipes mix neighbours (Q3_K in Q2_K files)."""

HEAD, TABLE = "output.weight", "token_embd.weight"

_MERGED = (
    ("ffn_gate_up_exps", ("ffn_gate_exps", "ffn_up_exps")),
    ("attn_qkv", ("attn_q", "attn_k", "attn_v")),
    ("attn_kv_b", ("attn_k_b", "attn_v_b")),
    ("ssm_ba", ("ssm_beta", "ssm_alpha")),
    ("ssm_in", ("attn_qkv", "attn_gate")),
    *(
        (f"ffn_{part}_exps", (f"ffn_{part}.0",))  # early Mixtral files: a tensor for each expert
        for part in ("gate", "up", "down")
    ),
)
"""Tensors that converters write as one or as several."""
_OPTIONAL = re.compile(
    r".*(rotary_emb\.inv_freq|attn_rot_embd\.|nextn\.(embed_tokens|shared_head_head)\.)"
)
_SCALE = re.compile(r"(?P<tensor>.*)\.(input_)?scale")
_SINGLE_EXPERT = re.compile(r"(?P<start>.*ffn_(gate|up|down))\.\d+\.(?P<rest>.*)")
_ROPE = re.compile(r".*rope_(freqs|factors)")


def tensors_findings(reference: Fingerprint, candidate: Fingerprint) -> list[Finding]:
    """Tensors that the reference has and the candidate has not."""
    absent = [
        tensor
        for tensor in reference.tensors
        if tensor.name not in candidate.by_name and not _is_excused(tensor, reference, candidate)
    ]
    shared = [tensor for tensor in absent if tensor.role is Role.SHARED_EXPERTS]
    if shared:  # those of multi-token prediction went the same way
        shared = [tensor for tensor in absent if "_shexp" in tensor.name]
    mtp = [tensor for tensor in absent if tensor.role is Role.MTP and not _holds(shared, tensor)]
    rest = [tensor for tensor in absent if not _holds(mtp, tensor)]
    rope = [tensor for tensor in rest if _ROPE.match(tensor.name)]
    rope += [t for t in candidate.tensors if _ROPE.match(t.name)
             and t.name not in reference.by_name]  # fmt: skip
    other = [tensor for tensor in rest if not _holds(shared, tensor) and not _holds(rope, tensor)]
    found = list(_mtp_findings(reference, candidate, mtp))
    for code, title, tensors in (
        ("shared-experts-missing", "Shared experts are missing, which every token needs", shared),
        ("rope-differs", "Only one of the files has its own rotary frequencies", rope),
        ("tensors-missing", "Tensors of the reference are missing", other),
    ):
        if tensors:
            found.append(
                Finding(
                    Severity.FAIL,
                    code,
                    title,
                    _named(tensors),
                    "Convert the model again from its source, or take another file of it.",
                )
            )
    return found


def types_findings(reference: Fingerprint, candidate: Fingerprint) -> list[Finding]:
    """Routers below 16 bits, and single layers whose experts have much fewer bits than others."""
    return [
        finding
        for finding in (_router_type(reference, candidate), _low_bits(reference, candidate))
        if finding is not None
    ]


def bits(tensor: TensorPrint) -> float:
    """Bits per weight, scales included."""
    kind = BY_NAME[tensor.type]
    return 8 * kind.block_bytes / kind.block_size


def _is_excused(tensor: TensorPrint, reference: Fingerprint, candidate: Fingerprint) -> bool:
    """Whether the candidate can do without `tensor` and still be the same model."""
    name = tensor.name
    if _OPTIONAL.match(name):
        return True
    if (scale := _SCALE.fullmatch(name)) is not None:
        # A format's own scale, gone with the format.
        base = f"{scale['tensor']}.weight"
        before, now = reference.by_name.get(base), candidate.by_name.get(base)
        return before is not None and now is not None and before.type != now.type
    if name == HEAD:
        return TABLE in candidate.by_name  # tied: their values are compared instead
    return any(all(other in candidate.by_name for other in others) for others in _other_names(name))


def _other_names(name: str) -> list[list[str]]:
    """Each a list of tensors that together stand for `name`."""
    found = []
    if (single := _SINGLE_EXPERT.fullmatch(name)) is not None:
        found.append([f"{single['start']}_exps.{single['rest']}"])
    for one, several in _MERGED:
        before, dot, after = name.partition(f".{one}.")
        if dot:
            found.append([f"{before}.{part}.{after}" for part in several])
        for part in several:
            before, dot, after = name.partition(f".{part}.")
            if dot:
                found.append([f"{before}.{one}.{after}"])
    return found


def _mtp_findings(
    reference: Fingerprint, candidate: Fingerprint, missing: Sequence[TensorPrint]
) -> list[Finding]:
    declared = candidate.keys.get("nextn_predict_layers", 0)
    declared = declared if isinstance(declared, int) else 0
    if declared > candidate.mtp_layers or (missing and candidate.mtp_layers):
        return [
            Finding(
                Severity.FAIL,
                "mtp-tensors-missing",
                "Multi-token prediction is declared, but its tensors are missing",
                _named(missing)
                if missing
                else f"{declared} blocks declared, {candidate.mtp_layers} found",
                "Convert again from a checkpoint that still has its mtp tensors, or remove "
                "nextn_predict_layers (and the block from block_count).",
            )
        ]
    if reference.mtp_layers > candidate.mtp_layers:
        return [
            Finding(
                Severity.WARN,
                "mtp-missing",
                "The reference has multi-token prediction, this file has not",
                f"{reference.mtp_layers} in the reference, {candidate.mtp_layers} here; answers "
                "are the same, but nothing can be drafted",
                "Take a file with its MTP tensors if you want speculative decoding.",
            )
        ]
    return []


def _router_type(reference: Fingerprint, candidate: Fingerprint) -> Finding | None:
    low = []
    for tensor in candidate.tensors:
        before = reference.by_name.get(tensor.name)
        if _is_router_matrix(tensor) and bits(tensor) < ROUTER_LEAST_BITS and before is not None:
            low += [tensor] if bits(tensor) < bits(before) else []
    if not low:
        return None
    worst = min(low, key=bits)
    pairs = [(reference.by_name[tensor.name], tensor) for tensor in low]
    cosines = [
        row_cosines(before, now, unit_errors(before, now))
        for before, now in pairs
        if comparable(before, now)
    ]
    rows = f"; {said_of_cosines(np.concatenate(cosines))}" if cosines else ""
    return Finding(
        Severity.WARN if bits(worst) >= ROUTER_WARN_BITS else Severity.FAIL,
        "router-quantized",
        "The routers were quantized, which decides which experts are chosen",
        f"{len(low)} of {sum(map(_is_router_matrix, candidate.tensors))} router tensors, down "
        f"to {worst.type} ({shown(worst.name)}){rows}",
        "Take a file with routers in F32, F16 or BF16, as quantizers leave them: they are a "
        "thousandth of its size.",
    )


def _is_router_matrix(tensor: TensorPrint) -> bool:
    return is_router(tensor.name) and tensor.name.endswith(".weight")


def _low_bits(reference: Fingerprint, candidate: Fingerprint) -> Finding | None:
    kinds: dict[str, list[TensorPrint]] = defaultdict(list)
    for tensor in candidate.tensors:
        if tensor.role is Role.ROUTED_EXPERTS and tensor.name.endswith(".weight"):
            kinds[tensor.name.partition(f"blk.{tensor.layer}.")[2]].append(tensor)
    low = []
    for tensors in kinds.values():
        usual = statistics.median(bits(tensor) for tensor in tensors)
        for tensor in tensors:
            before = reference.by_name.get(tensor.name)
            same = before is not None and before.type == tensor.type
            if not same and bits(tensor) < LOW_BITS and usual >= LOW_BITS_RATIO * bits(tensor):
                low.append(tensor)
    if not low:
        return None
    layers = sorted({tensor.layer for tensor in low if tensor.layer is not None})
    worst = min(low, key=bits)
    return Finding(
        Severity.WARN,
        "experts-low-bit",
        "The experts of some layers have much fewer bits than those of the others",
        f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(map(str, layers[:8]))}"
        f"{' …' if len(layers) > 8 else ''}: down to {worst.type}, {bits(worst):.2g} bits per "
        f"weight ({shown(worst.name)})",
        "Take a file of one recipe, or spread the bits over all layers.",
    )


def _holds(tensors: Sequence[TensorPrint], tensor: TensorPrint) -> bool:
    return any(tensor is other for other in tensors)


def _named(tensors: Sequence[TensorPrint]) -> str:
    names = ", ".join(shown(tensor.name) for tensor in tensors[:3])
    count = len(tensors)
    return f"{count} {'tensor' if count == 1 else 'tensors'}: {names}{', …' if count > 3 else ''}"
