"""Reads a folder in Hugging Face layout: config.json and the headers of its safetensors files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from moestro.errors import ModelCorrupt, ModelNotFound, ModelPartMissing, ModelUnsupported
from moestro.model import checks
from moestro.model.architectures import (
    UNKNOWN,
    Family,
    block_counts,
    family_of_hugging_face,
)
from moestro.model.foreign import diffusion_error, looks_like_diffusion
from moestro.model.gguf_model import experts_of
from moestro.model.hf_config import gguf_keys, text_config
from moestro.model.metadata import Hyperparameters
from moestro.model.roles import Role, mtp_layer, place, role_of
from moestro.model.safetensors import SafeTensor, load_json, read_safetensors_header
from moestro.model.source import FileSource
from moestro.model.spec import (
    OTHER_TOWERS,
    ModelFile,
    ModelSpec,
    Projector,
    RopeScaling,
    TensorInfo,
)
from moestro.words import shown

MAX_JSON_BYTES = 32 << 20
MAX_TEMPLATE_BYTES = 1 << 20
NO_CONFIG = "model-without-config"
"""The code of an error: there are weights, and nothing that says what they are."""
_DIFFUSION_KEYS = ("_diffusers_version",)
# Scales and zero points that quantizers store as tensors of their own.
_AUXILIARY = re.compile(
    r".*(_scale_inv|_scales?|\.scales?|\.qzeros|\.g_idx|_zero_point|_scale_2|input_scale|\.scb)$",
    re.IGNORECASE,
)


def read_hugging_face_folder(folder: Path) -> ModelSpec:
    """The model in `folder`.

    Raises:
        ModelUnsupported: an image or video model, or weights in another format.
        ModelPartMissing: the index names a file that is not there.
        ModelCorrupt, ModelTruncated, NotAModel, ModelNotFound
    """
    if (folder / "model_index.json").is_file():
        index = _json(folder / "model_index.json")
        pipeline = shown(str(index.get("_class_name", "diffusers")))
        raise diffusion_error(folder.name, f"an image or video model ({pipeline})")
    whole = _json(folder / "config.json")
    if any(key in whole for key in _DIFFUSION_KEYS):
        raise diffusion_error(folder.name, "a part of an image or video model")
    config = text_config(whole)
    model_type = _model_type(folder, whole, config)
    family = family_of_hugging_face(model_type)
    hyper = Hyperparameters(gguf_keys(config), "config.json")
    trunk, mtp_declared = block_counts(hyper)
    files, stored, read_bytes = _weights(folder)
    if family is UNKNOWN and looks_like_diffusion(tensor.name for _, tensor in stored):
        raise diffusion_error(folder.name, "an image or video model")
    bits = _quantized_bits(whole)
    tensors = tuple(_tensor(number, tensor, family, trunk, bits) for number, tensor in stored)
    layers = family.layers(hyper)
    experts, findings = experts_of(
        hyper, family, tensors, expert_bias="e_score_correction_bias", trunk=trunk
    )
    mtp_present = _mtp_blocks(tensors, trunk)
    template, template_bytes = _chat_template(folder)
    missing = checks.mtp_finding(mtp_declared, trunk, mtp_present)
    if missing is not None:
        findings.append(missing)
    if family is UNKNOWN:
        findings.append(checks.unknown_family_finding(model_type, cache_assumed=layers is not None))
    return ModelSpec(
        architecture=family.gguf_name(model_type),
        family_known=family is not UNKNOWN,
        format="safetensors",
        name=folder.resolve().name,
        quantization=_quantization(whole),
        files=files,
        tensors=tensors,
        layers=layers,
        layer_count=trunk,
        experts=experts,
        mtp_layers=len(mtp_present & set(range(trunk, trunk + mtp_declared))),
        context_length=hyper.integer("context_length"),
        embedding_length=hyper.integer("embedding_length"),
        vocabulary=hyper.integer("vocab_size"),
        rope_scaling=_rope_scaling(hyper),
        tokenizer="huggingface" if (folder / "tokenizer.json").is_file() else None,
        chat_template=template,
        projector=_projector(tensors),
        findings=tuple(findings),
        transferred_bytes=read_bytes,
        chat_template_bytes=template_bytes,
    )


def refuse_weights_without_config(folder: Path, names: Iterable[str]) -> NoReturn:
    """For a folder of safetensors files without a config.json: says what they are.

    Raises:
        ModelUnsupported: they belong to an image or video model.
        ModelNotFound: the config is missing.
    """
    for name in names:
        if name.endswith(".safetensors"):
            tensors, _ = read_safetensors_header(folder / name)
            if looks_like_diffusion(tensor.name for tensor in tensors):
                raise diffusion_error(folder.name, "an image or video model")
    raise ModelNotFound(
        f"{folder} has safetensors files, but no config.json.",
        hint="Get the config.json that belongs to them.",
        code=NO_CONFIG,
    )


def _json(path: Path) -> dict[str, Any]:
    with FileSource(path) as source:
        if source.size_bytes > MAX_JSON_BYTES:
            raise ModelCorrupt(
                f"{path.name} is absurdly long ({source.size_bytes:,} bytes).",
                hint="Get the file again from its source.",
            )
        value = load_json(path, source.read_at(0, source.size_bytes))
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{path.name} is no JSON object.", hint="Get the file again.")
    return value


def _model_type(folder: Path, whole: dict[str, Any], config: dict[str, Any]) -> str:
    for source in (config, whole):
        model_type = source.get("model_type")
        if isinstance(model_type, str) and model_type:
            return shown(model_type)
    raise ModelCorrupt(
        f"The config.json in {folder} does not name its model type.",
        hint="It may belong to something else than a language model.",
    )


def _weights(
    folder: Path,
) -> tuple[tuple[ModelFile, ...], list[tuple[int, SafeTensor]], int]:
    """(files, their tensors with the file's number, bytes read)."""
    names = _weight_files(folder)
    files, stored, read_bytes = [], [], 0
    seen: set[str] = set()
    for number, name in enumerate(names):
        tensors, transferred = read_safetensors_header(folder / name)
        read_bytes += transferred
        size = (folder / name).stat().st_size
        files.append(ModelFile(str(folder / name), size, len(tensors)))
        for tensor in tensors:
            if tensor.name in seen:
                raise ModelCorrupt(
                    f"{name} repeats the tensor {shown(tensor.name)} of an earlier file.",
                    hint="The files do not belong together; get them all again.",
                )
            seen.add(tensor.name)
            stored.append((number, tensor))
    return tuple(files), stored, read_bytes


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = _json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelCorrupt(f"{index.name} has no weight map.", hint="Get the file again.")
        names = sorted({name for name in weight_map.values() if isinstance(name, str)})
        if any("/" in name or "\\" in name or "\0" in name for name in names):
            raise ModelCorrupt(f"{index.name} names files outside its folder.", hint="Distrust it.")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            few = ", ".join(shown(name) for name in missing[:3])
            few += ", …" if len(missing) > 3 else ""
            raise ModelPartMissing(
                f"{len(missing)} of {len(names)} weight files are missing: {few}.",
                hint="The download is incomplete; get the missing files.",
            )
        return names
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if names:
        return names
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise ModelUnsupported(
            f"{folder.name} keeps its weights in pickles.",
            hint="Get the safetensors version, or convert the model to GGUF.",
        )
    raise ModelPartMissing(
        f"{folder} has a config.json, but no weights.", hint="Download the safetensors files too."
    )


def _tensor(
    number: int, tensor: SafeTensor, family: Family, trunk: int, bits: int | None
) -> TensorInfo:
    layer, _ = place(tensor.name)
    if tensor.name.startswith("mtp."):
        inner = mtp_layer(tensor.name)
        layer = trunk + inner if inner is not None else None
        role = Role.MTP
    elif layer is not None and layer >= trunk:
        role = Role.MTP
    else:
        role = role_of(tensor.name, family.roles)
    return TensorInfo(
        tensor.name,
        tensor.dtype,
        tensor.shape[::-1] or (1,),
        _parameters(tensor, bits),
        tensor.size_bytes,
        role,
        layer,
        number,
    )


def _parameters(tensor: SafeTensor, bits: int | None) -> int:
    """Parameters behind one stored tensor: quantizers pack several into a number and store their
    scales as tensors of their own."""
    stored = 1
    for length in tensor.shape:
        stored *= length
    name = tensor.name
    if name.endswith(("_blocks", ".weight_packed")) and tensor.dtype in ("U8", "I8"):
        return 2 * stored
    if name.endswith(".weight_packed") and tensor.dtype == "I32":
        return stored * 32 // (bits or 4)
    if name.endswith(".qweight") and tensor.dtype in ("I32", "U32"):
        return stored * 32 // (bits or 4)
    # Routed experts in 4 bits, two to a byte, as DeepSeek-V4 ships them.
    if bits is None and tensor.dtype == "I8" and ".experts." in name and name.endswith(".weight"):
        return 2 * stored
    if _AUXILIARY.match(name) and not name.endswith("layer_scale"):
        return 0
    return stored


def _quantized_bits(config: dict[str, Any]) -> int | None:
    settings = config.get("quantization_config")
    if isinstance(settings, dict):
        bits = settings.get("bits") or settings.get("w_bit")
        if type(bits) is int and bits in (2, 3, 4, 8):
            return bits
    return None


def _quantization(config: dict[str, Any]) -> str | None:
    settings = config.get("quantization_config")
    if isinstance(settings, dict):
        method = settings.get("quant_method")
        return shown(method, 32) if isinstance(method, str) else None
    dtype = config.get("dtype") or config.get("torch_dtype")
    return shown(dtype, 32) if isinstance(dtype, str) else None


def _mtp_blocks(tensors: Iterable[TensorInfo], trunk: int) -> set[int]:
    """Blocks after the trunk that have tensors; `mtp.fc` and its like belong to the first."""
    blocks = {
        tensor.layer if tensor.layer is not None else trunk
        for tensor in tensors
        if tensor.role is Role.MTP
    }
    return {block for block in blocks if block >= trunk}


def _rope_scaling(hyper: Hyperparameters) -> RopeScaling | None:
    kind = hyper.text("rope.scaling.type")
    if kind is None:
        return None
    return RopeScaling(
        kind,
        hyper.number("rope.scaling.factor"),
        hyper.integer("rope.scaling.original_context_length"),
    )


def _chat_template(folder: Path) -> tuple[str | None, int | None]:
    """The template as a file of its own, or in the tokenizer's config, and its length in bytes.
    Of one too long to keep only the length; None if there is neither."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        size_bytes = path.stat().st_size
        if size_bytes > MAX_TEMPLATE_BYTES:
            return None, size_bytes
        return path.read_text(encoding="utf-8", errors="replace"), size_bytes
    path = folder / "tokenizer_config.json"
    if path.is_file() and path.stat().st_size <= MAX_JSON_BYTES:
        template = _json(path).get("chat_template")
        if isinstance(template, str):
            kept = template if len(template) <= MAX_TEMPLATE_BYTES else None
            return kept, len(template.encode(errors="replace"))
    return None, None


def _projector(tensors: Iterable[TensorInfo]) -> Projector | None:
    """In this layout the vision part lies among the model's own tensors."""
    size_bytes = sum(
        tensor.size_bytes
        for tensor in tensors
        if tensor.role is Role.OTHER and tensor.name.startswith(OTHER_TOWERS)
    )
    return Projector(None, size_bytes) if size_bytes else None
