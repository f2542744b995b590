"""DeepSeek V2 and V3 (and Kimi K2, which is the same): multi-head latent attention.

Current files hold the up-projections split and absorbed (`attention.key_length_mla` is set): the
cache is one latent vector and its rotary part, `kv_lora + rope` values per token and block. Early
V2 files keep `attn_kv_b` whole; the engine then caches keys and values of every head, 16 to 57
times as much.

The router scores with a sigmoid in V3, which carries a bias per expert, and with a softmax in V2.
The engine takes a silent file as softmax.
"""

from __future__ import annotations

from moestro.model.architectures.family import Family, block_counts, grouped_query_layers
from moestro.model.cache import KvStore, Layer, LayerKind
from moestro.model.metadata import Hyperparameters


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    trunk, mtp = block_counts(hyper)
    latent = hyper.integer("attention.kv_lora_rank", most=1 << 20)
    rope = hyper.integer("rope.dimension_count", most=1 << 20)
    if not hyper.integer("attention.key_length_mla"):
        return grouped_query_layers(hyper)
    if not latent or rope is None:
        return None
    return tuple(
        Layer(index, LayerKind.LATENT, (KvStore(latent + rope),), mtp=index >= trunk)
        for index in range(trunk + mtp)
    )


FAMILY = Family(
    gguf=("deepseek2",),
    hugging_face={"deepseek_v3": "deepseek2", "deepseek_v2": "deepseek2", "kimi_k2": "deepseek2"},
    layers=layers,
)
