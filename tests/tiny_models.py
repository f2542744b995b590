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
    for key, value in keys.items():
        if key == "general.architecture" or key in drop_keys:
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
    random = np.random.default_rng(seed)
    for tensor in shape.tensors:
        if any(part in tensor.name for part in skip):
            continue
        writer.add_tensor(tensor.name, random_f32(tensor.name, tensor.dims, random))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
