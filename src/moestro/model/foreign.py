"""What a file is when it is not a language model: named, so that people know what they have."""

from __future__ import annotations

from collections.abc import Iterable

from moestro.errors import ModelError, ModelTruncated, ModelUnsupported, NotAModel
from moestro.model.source import ByteSource

_GGUF_HINT = "moestro reads GGUF files and Hugging Face folders."

# First bytes → what such a file is, and what to do.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or PyTorch checkpoint", "Convert the checkpoint to GGUF first."),
    (b"\x80\x02", "a Python pickle", "Convert the checkpoint to GGUF first."),
    (b"lmgg", "a GGML file from before GGUF", "Get the model as GGUF; the old format is gone."),
    (b"tjgg", "a GGJT file from before GGUF", "Get the model as GGUF; the old format is gone."),
    (b"fmgg", "a GGMF file from before GGUF", "Get the model as GGUF; the old format is gone."),
    (b"algg", "a LoRA adapter from before GGUF", "Get the adapter's model as GGUF."),
    (b"FUGG", "a byte-swapped GGUF", "Get the little-endian file."),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it points to",
        "Run `git lfs pull` in that folder, or download the file itself.",
    ),
    (b"<!DOCTYPE", "a web page", "The link led to a page; copy the address of the file itself."),
    (b"<!doctype", "a web page", "The link led to a page; copy the address of the file itself."),
    (b"<html", "a web page", "The link led to a page; copy the address of the file itself."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it first."),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it first."),
    (b"\x7fELF", "a program", _GGUF_HINT),
    (b"\x89HDF", "an HDF5 file", "Convert the checkpoint to GGUF first."),
)

# `general.architecture` of GGUF files that hold image or video models.
IMAGE_MODELS = frozenset(
    {"flux", "flux2", "sd1", "sd2", "sd3", "sdxl", "sd3.5", "aura", "hidream", "lumina2",
     "qwen_image", "qwen-image", "z_image", "z-image", "chroma", "kolors", "pixart", "sana",
     "omnigen", "anima", "cosmos-predict2", "hunyuan_image"}
)  # fmt: skip
VIDEO_MODELS = frozenset(
    {"ltxv", "ltxv2", "ltx", "ltx2", "wan", "wan2", "hyvid", "hunyuan_video", "cosmos",
     "cogvideox", "mochi", "sulphur"}
)  # fmt: skip

# Parts of tensor names that only diffusion models have.
_DIFFUSION_PARTS = (
    "model.diffusion_model.",
    "double_blocks.",
    "single_blocks.",
    "joint_blocks.",
    "adaln_single",
    "adaln_modulation",
    "patchify_proj",
    "x_embedder",
    "time_embed",
    "t_embedder",
    "img_in.",
    "time_text_embed",
    "first_stage_model.",
)

HUB_TASKS: dict[str, str] = {
    "text-to-image": "an image model",
    "image-to-image": "an image model",
    "unconditional-image-generation": "an image model",
    "text-to-video": "a video model",
    "image-to-video": "a video model",
    "video-to-video": "a video model",
    "text-to-audio": "an audio model",
    "text-to-speech": "a speech model",
    "automatic-speech-recognition": "a speech recognition model",
    "text-to-3d": "a 3D model generator",
    "image-to-3d": "a 3D model generator",
}
"""What a hub says about a repository, for those tasks that are not a language model's."""

_OTHER_GGUF_KINDS: dict[str, tuple[str, str]] = {
    "mmproj": (
        "the projector (vision or audio part) of a model, not a language model",
        "Give the language model's GGUF; the projector beside it is found by itself.",
    ),
    "adapter": (
        "a LoRA adapter, not a model",
        "Give the model that it was made for.",
    ),
    "imatrix": (
        "an importance matrix, which a quantizer uses, not a model",
        "Give the model itself.",
    ),
}


def not_a_model(source: ByteSource, start: bytes) -> ModelError:
    """The error for a file that does not start like a GGUF."""
    name = source.name
    if not start:
        return NotAModel(f"{name} is empty.", hint="The download may never have started.")
    if start == b"GGUF"[: len(start)]:
        return ModelTruncated(
            f"{name} has only {len(start)} bytes.", hint="Get the file again; it was cut off."
        )
    for signature, kind, hint in _SIGNATURES:
        if start.startswith(signature):
            return NotAModel(f"{name} is {kind}, not a GGUF model.", hint=hint)
    if start[8:9] == b"{" and not any(start[5:8]):
        return NotAModel(
            f"{name} is a safetensors file, not a GGUF model.",
            hint="Give the folder that it lies in: its config.json is needed too.",
        )
    if not any(start):
        return NotAModel(
            f"{name} begins with zeros: it is no model, or a download that never began.",
            hint="Get the file again.",
        )
    return NotAModel(f"{name} is not a GGUF model.", hint=_GGUF_HINT)


def refuse_other_kinds(name: str, architecture: str | None, general_type: str | None) -> None:
    """Stops at sound GGUF files that are something other than a language model.

    Raises:
        ModelUnsupported: a projector, an adapter, an importance matrix, an image or video model.
    """
    kind = general_type or ("mmproj" if architecture == "clip" else "model")
    if architecture == "clip":
        kind = "mmproj"
    if kind in _OTHER_GGUF_KINDS:
        what, hint = _OTHER_GGUF_KINDS[kind]
        raise ModelUnsupported(f"{name} is {what}.", hint=hint)
    if architecture is not None:
        refuse_diffusion(name, architecture.lower())


def refuse_diffusion(name: str, architecture: str) -> None:
    """Stops at architectures that make pictures or films."""
    if architecture in IMAGE_MODELS:
        raise diffusion_error(name, f"an image model ({architecture})")
    if architecture in VIDEO_MODELS:
        raise diffusion_error(name, f"a video model ({architecture})")


def diffusion_error(name: str, what: str) -> ModelUnsupported:
    return ModelUnsupported(
        f"{name} is {what}, not a language model.",
        hint="moestro serves language models; use an image or video program for this one.",
    )


def looks_like_diffusion(tensor_names: Iterable[str]) -> bool:
    """Whether tensor names speak of a diffusion model, whatever the file calls itself."""
    found = set()
    for name in tensor_names:
        lower = name.lower()
        if lower.startswith(("blk.", "model.layers.", "token_embd", "model.embed_tokens")):
            return False
        found |= {part for part in _DIFFUSION_PARTS if part in lower}
    return bool(found)
