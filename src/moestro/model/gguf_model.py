"""From the headers of one or several GGUF files to a ModelSpec."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.errors import ModelCorrupt
from moestro.findings import Finding
from moestro.model import checks
from moestro.model.architectures import UNKNOWN, Family, block_counts, family_of_gguf
from moestro.model.foreign import diffusion_error, looks_like_diffusion, refuse_other_kinds
from moestro.model.ggml_types import FILE_TYPES
from moestro.model.gguf import GgufHeader
from moestro.model.metadata import Hyperparameters, SkippedArray, SkippedText, Value
from moestro.model.roles import Role, place, role_of
from moestro.model.skeleton import skeleton_of
from moestro.model.spec import (
    Experts,
    ModelFile,
    ModelSpec,
    Projector,
    RopeScaling,
    TensorInfo,
    layers_with,
)
from moestro.words import shown

GATING = {1: "softmax", 2: "sigmoid", 3: "softmax-of-chosen", 4: "sqrt-softplus"}
"""`expert_gating_func`, as the engine numbers it."""

MAX_EXPERTS = 1 << 16
_ARCHITECTURE = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model, with its header. `name` is for sentences."""

    name: str
    location: str
    size_bytes: int | None
    transferred_bytes: int
    header: GgufHeader


def model_of_parts(parts: Sequence[Part], projector: Projector | None = None) -> ModelSpec:
    """The model that `parts` (in order, all of them) make up.

    Raises:
        ModelUnsupported: a sound GGUF of something other than a language model.
        ModelCorrupt: the parts contradict each other or themselves.
    """
    first = parts[0]
    metadata = first.header.metadata
    architecture = _architecture(first)
    hyper = Hyperparameters(_own_keys(metadata, architecture), first.name)
    family = family_of_gguf(architecture)
    trunk, mtp_declared = block_counts(hyper)
    tensors = _tensors(parts, family, trunk if mtp_declared else None)
    if family is UNKNOWN and looks_like_diffusion(tensor.name for tensor in tensors):
        raise diffusion_error(first.name, "an image or video model")
    layers = family.layers(hyper)
    experts, findings = experts_of(hyper, family, tensors, expert_bias="exp_probs_b")
    mtp_present = _mtp_blocks(tensors) & set(range(trunk, trunk + mtp_declared))
    if (finding := checks.mtp_finding(mtp_declared, trunk, mtp_present)) is not None:
        findings.append(finding)
    if family is UNKNOWN:
        findings.append(
            checks.unknown_family_finding(architecture, cache_assumed=layers is not None)
        )
    findings += [finding for part in parts for finding in _gaps(part)]
    return ModelSpec(
        architecture=architecture,
        family_known=family is not UNKNOWN,
        format="gguf",
        name=_name(metadata),
        quantization=_quantization(metadata),
        files=tuple(
            ModelFile(part.location, part.size_bytes, len(part.header.tensors)) for part in parts
        ),
        tensors=tensors,
        layers=layers,
        layer_count=trunk,
        experts=experts,
        mtp_layers=len(mtp_present),
        context_length=hyper.integer("context_length"),
        embedding_length=hyper.integer("embedding_length"),
        vocabulary=_vocabulary(metadata, hyper),
        rope_scaling=_rope_scaling(hyper),
        tokenizer=_text(metadata, "tokenizer.ggml.model"),
        chat_template=_text(metadata, "tokenizer.chat_template"),
        projector=projector,
        findings=tuple(findings),
        transferred_bytes=sum(part.transferred_bytes for part in parts),
        attention_heads=hyper.integer("attention.head_count", most=1 << 16),
        skeleton=skeleton_of(first.header, architecture),
        chat_template_bytes=_length(metadata.get("tokenizer.chat_template")),
        tool_template=_text(metadata, "tokenizer.chat_template.tool_use"),
        tool_template_bytes=_length(metadata.get("tokenizer.chat_template.tool_use")),
    )


def _architecture(part: Part) -> str:
    metadata = part.header.metadata
    architecture = metadata.get("general.architecture")
    general_type = _text(metadata, "general.type")
    named = isinstance(architecture, str) and _ARCHITECTURE.fullmatch(architecture)
    refuse_other_kinds(part.name, architecture if isinstance(architecture, str) else None,
                       general_type)  # fmt: skip
    if not isinstance(architecture, str) or not named:
        if looks_like_diffusion(tensor.name for tensor in part.header.tensors):
            raise diffusion_error(part.name, "an image or video model")
        raise ModelCorrupt(
            f"{part.name} does not name its architecture.",
            hint="It may be one part of a model, or was converted wrongly.",
        )
    return architecture


def _own_keys(metadata: dict[str, Value], architecture: str) -> dict[str, Value]:
    prefix = f"{architecture}."
    return {key[len(prefix) :]: value for key, value in metadata.items() if key.startswith(prefix)}


def _tensors(
    parts: Sequence[Part], family: Family, first_mtp_layer: int | None
) -> tuple[TensorInfo, ...]:
    seen: set[str] = set()
    found = []
    for number, part in enumerate(parts):
        for tensor in part.header.tensors:
            if tensor.name in seen:
                raise ModelCorrupt(
                    f"{part.name} repeats the tensor {shown(tensor.name)} of an earlier part.",
                    hint="The parts do not belong together; get them all again.",
                )
            seen.add(tensor.name)
            layer, _ = place(tensor.name)
            role = role_of(tensor.name, family.roles)
            if layer is not None and first_mtp_layer is not None and layer >= first_mtp_layer:
                role = Role.MTP
            found.append(
                TensorInfo(
                    tensor.name,
                    tensor.type.name,
                    tensor.dims,
                    tensor.elements,
                    tensor.size_bytes,
                    role,
                    layer,
                    number,
                )
            )
    return tuple(found)


def _mtp_blocks(tensors: Sequence[TensorInfo]) -> set[int]:
    """Blocks with the projection that joins embedding and hidden state: no MTP block without."""
    return {
        tensor.layer
        for tensor in tensors
        if tensor.layer is not None and tensor.name.endswith(".nextn.eh_proj.weight")
    }


def experts_of(
    hyper: Hyperparameters,
    family: Family,
    tensors: Sequence[TensorInfo],
    *,
    expert_bias: str,
    trunk: int | None = None,
) -> tuple[Experts | None, list[Finding]]:
    """The experts, of the first `trunk` blocks only if that is given. `expert_bias` is in the names
    of the tensors that hold one bias per expert, a mark of sigmoid gating."""
    findings: list[Finding] = []
    count = hyper.integer("expert_count", most=MAX_EXPERTS)
    expert_layers = layers_with(tensors, Role.ROUTED_EXPERTS)
    if trunk is not None:
        expert_layers = {layer for layer in expert_layers if layer < trunk}
    if not count or not expert_layers:
        return None, findings
    used = hyper.integer("expert_used_count", most=MAX_EXPERTS)
    if not used or used > count:
        findings.append(checks.experts_unclear_finding(count))
        used = count
    shared = hyper.integer("expert_shared_count", most=MAX_EXPERTS)
    if shared is None:
        shared = 1 if layers_with(tensors, Role.SHARED_EXPERTS) else 0
    number = hyper.integer("expert_gating_func")
    said = GATING.get(number, "unknown") if number else None
    has_bias = any(expert_bias in tensor.name for tensor in tensors)
    if family.gating == "softmax":
        finding = checks.gating_finding(said, has_expert_bias=has_bias)
        if finding is not None:
            findings.append(finding)
    gating = said or family.gating
    return Experts(count, used, shared, gating, len(expert_layers)), findings


def _gaps(part: Part) -> list[Finding]:
    """The first unused space between tensors that padding does not explain."""
    end = 0
    alignment = part.header.alignment
    for tensor in sorted(part.header.tensors, key=lambda tensor: tensor.offset):
        expected = end + -end % alignment
        if tensor.offset > expected:
            return [checks.offset_gap_finding(shown(tensor.name), tensor.offset - expected)]
        end = tensor.offset + tensor.size_bytes
    return []


def _quantization(metadata: dict[str, Value]) -> str | None:
    number = metadata.get("general.file_type")
    return FILE_TYPES.get(number) if isinstance(number, int) else None


def _vocabulary(metadata: dict[str, Value], hyper: Hyperparameters) -> int | None:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, SkippedArray):
        return tokens.count
    if isinstance(tokens, list):
        return len(tokens)
    return hyper.integer("vocab_size")


def _rope_scaling(hyper: Hyperparameters) -> RopeScaling | None:
    kind = hyper.text("rope.scaling.type")
    if kind is None or kind == "none":
        return None
    return RopeScaling(
        kind,
        hyper.number("rope.scaling.factor"),
        hyper.integer("rope.scaling.original_context_length"),
    )


def _name(metadata: dict[str, Value]) -> str | None:
    name = _text(metadata, "general.name") or _text(metadata, "general.basename")
    return None if name is None else shown(name, 120)


def _length(value: Value | None) -> int | None:
    """Of a text that is there, kept or not, in bytes."""
    if isinstance(value, SkippedText):
        return value.length_bytes
    return len(value.encode(errors="replace")) if isinstance(value, str) and value else None


def _text(metadata: dict[str, Value], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None
