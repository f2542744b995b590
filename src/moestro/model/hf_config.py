"""A Hugging Face `config.json` in the words of GGUF: the architectures need one language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moestro.model.metadata import MAX_LAYERS, Scalar, Value

# GGUF key ← the config keys that may hold it, the first one wins.
_RENAMED: dict[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers", "n_layer", "num_layers"),
    "context_length": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.q_lora_rank": ("q_lora_rank",),
    "attention.indexer.key_length": ("index_head_dim",),
    "rope.dimension_count": ("qk_rope_head_dim",),
    "expert_count": ("n_routed_experts", "num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok", "num_experts_per_token"),
    "expert_shared_count": ("n_shared_experts",),
    "nextn_predict_layers": ("num_nextn_predict_layers", "mtp_num_hidden_layers"),
    "full_attention_interval": ("full_attention_interval",),
    "ssm.conv_kernel": ("linear_conv_kernel_dim",),
    "ssm.state_size": ("linear_key_head_dim",),
    "ssm.group_count": ("linear_num_key_heads",),
    "shortconv.l_cache": ("conv_L_cache",),
}
_GATING_KEYS = (
    "scoring_func",
    "score_function",
    "score_func",
    "moe_router_activation_func",
    "router_score_func",
)
_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
_RECURRENT_KINDS = ("linear_attention", "conv", "recurrent", "mamba")


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of a config: vision models keep it one level down."""
    for key in ("text_config", "language_config", "llm_config", "thinker_config"):
        inner = config.get(key)
        if isinstance(inner, dict) and _RENAMED["block_count"][0] in inner:
            return {**{k: v for k, v in config.items() if not isinstance(v, dict)}, **inner}
    return dict(config)


def gguf_keys(config: Mapping[str, Any]) -> dict[str, Value]:
    """The hyperparameters of `config` (a text config) under their GGUF names."""
    keys: dict[str, Value] = {}
    for name, sources in _RENAMED.items():
        for source in sources:
            value = config.get(source)
            if isinstance(value, bool | int | float | str):
                keys[name] = value
                break
    _count_mtp_blocks(keys)
    _scoring(config, keys)
    _layer_kinds(config, keys)
    _delta_net(config, keys)
    if "attention.kv_lora_rank" in keys:
        # Engines absorb the up-projections of latent attention while they convert.
        keys["attention.key_length_mla"] = 1
    if config.get("use_sliding_window") is False:
        keys.pop("attention.sliding_window", None)
    ratios = config.get("compress_ratios")
    if isinstance(ratios, list) and ratios:
        keys["attention.compress_ratios"] = _scalars(ratios)
    _rope(config, keys)
    return keys


def _count_mtp_blocks(keys: dict[str, Value]) -> None:
    """GGUF counts MTP blocks among the blocks, configs do not."""
    blocks, mtp = keys.get("block_count"), keys.get("nextn_predict_layers")
    if type(blocks) is int and type(mtp) is int:
        keys["block_count"] = blocks + mtp


def _scoring(config: Mapping[str, Any], keys: dict[str, Value]) -> None:
    for source in _GATING_KEYS:
        said = config.get(source)
        if isinstance(said, str):
            keys["expert_gating_func"] = _GATING.get(said.lower(), 99)
            return


def _layer_kinds(config: Mapping[str, Any], keys: dict[str, Value]) -> None:
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or not kinds or len(kinds) > MAX_LAYERS:
        return
    if any(kind in _RECURRENT_KINDS for kind in kinds):
        keys["attention.recurrent_layers"] = [kind in _RECURRENT_KINDS for kind in kinds]
    windowed = [kind == "sliding_attention" for kind in kinds]
    if any(windowed):
        keys["attention.sliding_window_pattern"] = list[Scalar](windowed)
    else:
        keys.pop("attention.sliding_window", None)
    kv_heads = keys.get("attention.head_count_kv")
    if "shortconv.l_cache" in keys and type(kv_heads) is int:
        keys["attention.head_count_kv"] = [
            0 if kind in _RECURRENT_KINDS else kv_heads for kind in kinds
        ]


def _delta_net(config: Mapping[str, Any], keys: dict[str, Value]) -> None:
    heads, width = config.get("linear_num_value_heads"), config.get("linear_value_head_dim")
    if type(heads) is int and type(width) is int:
        keys["ssm.inner_size"] = heads * width


def _rope(config: Mapping[str, Any], keys: dict[str, Value]) -> None:
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, dict):
        return
    kind = scaling.get("rope_type") or scaling.get("type")
    if isinstance(kind, str) and kind not in ("default", "mrope"):
        keys["rope.scaling.type"] = kind
    for name, source in (
        ("rope.scaling.factor", "factor"),
        ("rope.scaling.original_context_length", "original_max_position_embeddings"),
    ):
        value = scaling.get(source)
        if isinstance(value, int | float) and not isinstance(value, bool):
            keys[name] = value


def _scalars(values: list[Any]) -> list[Scalar]:
    return [value for value in values[:MAX_LAYERS] if isinstance(value, int | float | str)]
