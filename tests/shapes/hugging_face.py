"""Writes a shape as a Hugging Face folder: config.json and safetensors headers, no weights."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .shape import Shape

HfTensor = tuple[str, tuple[int, ...], str]
BITS = {"BF16": 16, "F32": 32, "F16": 16, "F8_E4M3": 8, "U8": 8, "I32": 32, "I64": 64}

# GGUF stem → Hugging Face stem, for the names that all of these models share.
COMMON = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}
MIXTRAL = {
    **COMMON,
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
}
DEEPSEEK = {
    **COMMON,
    "exp_probs_b": "mlp.gate.e_score_correction_bias",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_k_b": "self_attn.kv_b_proj.k",  # one tensor in truth; the sizes are the same
    "attn_v_b": "self_attn.kv_b_proj.v",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "nextn.eh_proj": "eh_proj",
    "nextn.enorm": "enorm",
    "nextn.hnorm": "hnorm",
    "nextn.embed_tokens": "embed_tokens",
    "nextn.shared_head_head": "shared_head.head",
    "nextn.shared_head_norm": "shared_head.norm",
}
QWEN35 = {
    **COMMON,
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_conv1d": "linear_attn.conv1d",
    "ssm_dt": "linear_attn.dt_bias",
    "ssm_a": "linear_attn.A_log",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
    "nextn.eh_proj": "fc",
    "nextn.enorm": "pre_fc_norm_embedding",
    "nextn.hnorm": "pre_fc_norm_hidden",
    "nextn.shared_head_norm": "norm",
}
LFM2 = {
    **COMMON,
    "attn_norm": "operator_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
    "ffn_gate_inp": "feed_forward.gate",
    "exp_probs_b": "feed_forward.expert_bias",
    "ffn_gate_exps": "feed_forward.experts.{}.w1",
    "ffn_up_exps": "feed_forward.experts.{}.w3",
    "ffn_down_exps": "feed_forward.experts.{}.w2",
}
NAMES = {
    "llama": COMMON,
    "mixtral": MIXTRAL,
    "qwen3moe": COMMON,
    "qwen2moe": COMMON,
    "deepseek2": DEEPSEEK,
    "qwen35moe": QWEN35,
    "lfm2moe": LFM2,
}
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "token_embd_norm.weight": "model.embedding_norm.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(.+?)(\.weight|\.bias)?")


def to_hugging_face(shape: Shape, names: dict[str, str], *, mtp_prefix: bool) -> list[HfTensor]:
    """The shape's tensors under their Hugging Face names; experts apart. With `mtp_prefix` the
    MTP block is called `mtp.layers.0.…`, otherwise it is a further layer."""
    blocks = shape.metadata[f"{shape.architecture}.block_count"]
    trunk = blocks - shape.metadata.get(f"{shape.architecture}.nextn_predict_layers", 0)
    found: list[HfTensor] = []
    for tensor in shape.tensors:
        match = _BLOCK.fullmatch(tensor.name)
        if match is None:
            found.append((OUTSIDE[tensor.name], tensor.dims[::-1], "BF16"))
            continue
        layer, stem, suffix = int(match[1]), match[2], match[3] or ""
        ends_bare = names[stem].endswith(("_bias", "expert_bias", "A_log", "dt_bias"))
        suffix = "" if ends_bare else suffix
        prefix = f"model.layers.{layer}."
        if mtp_prefix and layer >= trunk:
            prefix = "mtp." if stem.startswith("nextn.") else f"mtp.layers.{layer - trunk}."
        name = prefix + names[stem] + suffix
        if "{}" in name:
            *rest, count = tensor.dims
            found += [(name.format(i), tuple(rest[::-1]), "BF16") for i in range(count)]
        else:
            found.append((name, tensor.dims[::-1], "BF16"))
    return found


def write_folder(
    folder: Path, config: dict[str, Any], tensors: Iterable[HfTensor], *, shards: int = 1
) -> Path:
    """A folder with sparse safetensors files; several of them come with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    everything = list(tensors)
    per_shard = -(-len(everything) // shards)
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        name = "model.safetensors" if shards == 1 else name
        part = everything[number * per_shard : (number + 1) * per_shard]
        write_safetensors(folder / name, part)
        weight_map.update({tensor[0]: name for tensor in part})
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_safetensors(path: Path, tensors: Iterable[HfTensor]) -> Path:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape, dtype in tensors:
        elements = 1
        for length in shape:
            elements *= length
        size = elements * BITS[dtype] // 8
        entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    raw = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + offset)
    return path
