"""Real, runnable models of a few megabytes with random weights, one per architecture family.

They answer with noise, but the engine loads and runs them like any other file:

    path = write_tiny("qwen35moe", tmp_path)          # hybrid, shared expert, one MTP block
    path = write_tiny("llama", tmp_path, seed=1)      # dense

Byte-level GPT-2 tokenizer, ChatML template, context length 4096, all tensors F32. The file is
written by the `gguf` package, so it does not share a bug with moestro's own reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.shapes import Shape, families
from tests.shapes.weights import random_f32
from tests.shapes.write import tokenizer

VOCAB = 320
CONTEXT = 4096

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _dense(architecture: str = "llama", **options: Any) -> Shape:
    return families.llama(
        layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocab=VOCAB, context=CONTEXT,
        architecture=architecture, **options,
    )  # fmt: skip


def _hybrid(**options: Any) -> Shape:
    return families.qwen35(
        layers=4, hidden=64, heads=4, kv_heads=2, head_dim=32, linear_v_heads=4, linear_k_heads=2,
        linear_dim=32, vocab=VOCAB, context=CONTEXT, **options,
    )  # fmt: skip


TINY: dict[str, Callable[[], Shape]] = {
    "llama": lambda: _dense(tied=True),
    "qwen2": lambda: _dense("qwen2", bias=True),
    "qwen3": lambda: _dense("qwen3", qk_norm=True, head_dim=32, tied=True),
    "gemma3": lambda: families.gemma3(
        layers=7, hidden=64, heads=4, kv_heads=2, head_dim=32, ffn=128, vocab=VOCAB, window=64,
        context=CONTEXT,
    ),
    "mixtral": lambda: _dense(experts=4, used=2),
    "qwen3moe": lambda: families.qwen3moe(
        layers=2, hidden=64, heads=4, kv_heads=2, head_dim=32, ffn=128, expert_ffn=32, experts=8,
        used=2, vocab=VOCAB, context=CONTEXT,
    ),
    "qwen2moe": lambda: families.qwen2moe(
        layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, expert_ffn=32, shared_ffn=64, experts=8,
        used=2, vocab=VOCAB, context=CONTEXT,
    ),
    "olmoe": lambda: families.olmoe(
        layers=2, hidden=64, heads=4, kv_heads=4, ffn=32, experts=8, used=2, vocab=VOCAB,
        context=CONTEXT,
    ),
    "gpt-oss": lambda: families.gpt_oss(
        layers=2, hidden=64, heads=4, kv_heads=2, head_dim=32, expert_ffn=32, experts=8, used=2,
        vocab=VOCAB, window=64, context=CONTEXT,
    ),
    "glm4moe": lambda: families.glm4moe(
        layers=2, hidden=64, heads=4, kv_heads=2, head_dim=32, ffn=128, expert_ffn=32, experts=8,
        used=2, shared=1, dense_lead=1, vocab=VOCAB, mtp=0, context=CONTEXT,
    ),
    "granitemoe": lambda: families.granitemoe(
        layers=2, hidden=64, heads=4, kv_heads=2, ffn=32, experts=8, used=2, vocab=VOCAB,
        context=CONTEXT,
    ),
    "lfm2moe": lambda: families.lfm2(
        layers=4, hidden=64, heads=4, kv_heads=2, attention_layers=(2,), ffn=128, expert_ffn=32,
        experts=8, used=2, dense_lead=1, vocab=VOCAB, context=CONTEXT,
    ),
    "deepseek2": lambda: families.deepseek2(
        layers=3, hidden=64, heads=4, q_lora=32, kv_lora=32, rope_dim=16, nope_dim=32,
        value_dim=32, ffn=128, expert_ffn=32, experts=8, used=2, shared=1, dense_lead=1,
        vocab=VOCAB, context=CONTEXT,
    ),
    "qwen35": lambda: _hybrid(ffn=128, mtp=1),
    "qwen35moe": lambda: _hybrid(expert_ffn=32, shared_ffn=32, experts=8, used=2, mtp=1),
    "qwen3next": lambda: _hybrid(
        expert_ffn=32, shared_ffn=32, experts=8, used=2, architecture="qwen3next"
    ),
}  # fmt: skip


def write_tiny(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    mtp: bool = True,
    filename: str | None = None,
    skip: tuple[str, ...] = (),
    drop_keys: tuple[str, ...] = (),
    more_keys: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the tiny model `name` (a key of `TINY`) into `folder` and returns its path.

    `mtp=False` leaves the MTP block out, key and tensors. `skip` leaves out tensors whose name
    contains one of its parts while the metadata still promises them: a broken file on purpose.
    """
    shape = TINY[name]()
    blocks = shape.metadata[f"{shape.architecture}.block_count"]
    layers = blocks - shape.metadata.get(f"{shape.architecture}.nextn_predict_layers", 0)
    if not mtp and blocks > layers:
        shape.metadata[f"{shape.architecture}.block_count"] = layers
        del shape.metadata[f"{shape.architecture}.nextn_predict_layers"]
        skip = (*skip, *(f"blk.{layer}." for layer in range(layers, blocks)))
    path = folder / (filename or f"tiny-{name}.gguf")
    writer = gguf.GGUFWriter(path, shape.architecture)
    keys = {**shape.metadata, **tokenizer(VOCAB, CHATML), "general.name": f"tiny {name}"}
    keys |= more_keys or {}
    _add_keys(writer, {key: value for key, value in keys.items() if key not in drop_keys})
    random = np.random.default_rng(seed)
    for tensor in shape.tensors:
        if any(part in tensor.name for part in skip):
            continue
        writer.add_tensor(tensor.name, random_f32(tensor.name, tensor.dims, random))
    _write(writer)
    return path


IMAGE_SIZE, PATCH, MERGE = 32, 8, 2
IMAGE_TOKENS = (IMAGE_SIZE // PATCH // MERGE) ** 2
"""Into which every image is turned, whatever its size."""


def write_tiny_projector(folder: Path, *, hidden: int = 64, seed: int = 0) -> Path:
    """A projector with one block of random weights, of the kind that Gemma 3 has, for any of the
    models above: `hidden` is what they all have."""
    width, ffn = 48, 96
    path = folder / "mmproj-tiny.gguf"
    writer = gguf.GGUFWriter(path, "clip")
    keys: dict[str, Any] = {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "gemma3",
        "clip.use_gelu": True,
        "clip.vision.image_size": IMAGE_SIZE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": width,
        "clip.vision.feed_forward_length": ffn,
        "clip.vision.block_count": 1,
        "clip.vision.projection_dim": hidden,
        "clip.vision.attention.head_count": 4,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.projector.scale_factor": MERGE,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    _add_keys(writer, keys)
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (width, 3, PATCH, PATCH),
        "v.patch_embd.bias": (width,),
        "v.position_embd.weight": ((IMAGE_SIZE // PATCH) ** 2, width),
        "v.blk.0.ffn_up.weight": (ffn, width),
        "v.blk.0.ffn_up.bias": (ffn,),
        "v.blk.0.ffn_down.weight": (width, ffn),
        "v.blk.0.ffn_down.bias": (width,),
        "mm.input_projection.weight": (width, hidden),
    }
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        shapes |= {f"v.blk.0.{part}.weight": (width, width), f"v.blk.0.{part}.bias": (width,)}
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(0, 0.2, shape).astype(np.float32))
    for norm in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        writer.add_tensor(f"{norm}.weight", np.ones(width, np.float32))
        writer.add_tensor(f"{norm}.bias", np.zeros(width, np.float32))
    writer.add_tensor("mm.soft_emb_norm.weight", np.ones(width, np.float32))
    _write(writer)
    return path


def _add_keys(writer: gguf.GGUFWriter, keys: Mapping[str, Any]) -> None:
    for key, value in keys.items():
        if key == "general.architecture":
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
