"""The models that moestro's tests know by their published configurations."""

from __future__ import annotations

from collections.abc import Callable

from . import families
from .shape import Shape


def qwen36_35b_a3b(mtp: int = 1) -> Shape:
    return families.qwen35(
        layers=40, hidden=2048, heads=16, kv_heads=2, head_dim=256,
        linear_v_heads=32, linear_k_heads=16, linear_dim=128,
        expert_ffn=512, shared_ffn=512, experts=256, used=8, vocab=248320, mtp=mtp,
    )  # fmt: skip


def qwen36_27b(mtp: int = 1) -> Shape:
    return families.qwen35(
        layers=64, hidden=5120, heads=24, kv_heads=4, head_dim=256,
        linear_v_heads=48, linear_k_heads=16, linear_dim=128,
        ffn=17408, vocab=248320, mtp=mtp,
    )  # fmt: skip


def qwen3_next_80b_a3b() -> Shape:
    return families.qwen35(
        layers=48, hidden=2048, heads=16, kv_heads=2, head_dim=256,
        linear_v_heads=32, linear_k_heads=16, linear_dim=128,
        expert_ffn=512, shared_ffn=512, experts=512, used=10, vocab=151936,
        architecture="qwen3next",
    )  # fmt: skip


def qwen3_30b_a3b() -> Shape:
    return families.qwen3moe(
        layers=48, hidden=2048, heads=32, kv_heads=4, head_dim=128, ffn=6144,
        expert_ffn=768, experts=128, used=8, vocab=151936,
    )  # fmt: skip


def mixtral_8x7b() -> Shape:
    return families.llama(
        layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=32000, experts=8, used=2
    )


def mixtral_8x22b() -> Shape:
    return families.llama(
        layers=56, hidden=6144, heads=48, kv_heads=8, ffn=16384, vocab=32768, experts=8, used=2,
        context=65536,
    )  # fmt: skip


def deepseek_v3(mtp: int = 1, *, sigmoid: bool = True) -> Shape:
    return families.deepseek2(
        layers=61, hidden=7168, heads=128, q_lora=1536, kv_lora=512, rope_dim=64, nope_dim=128,
        value_dim=128, ffn=18432, expert_ffn=2048, experts=256, used=8, shared=1, dense_lead=3,
        vocab=129280, mtp=mtp, sigmoid=sigmoid,
    )  # fmt: skip


def deepseek_v2_lite() -> Shape:
    """An early conversion: the latent up-projection is whole, so the cache is not compressed."""
    return families.deepseek2(
        layers=27, hidden=2048, heads=16, q_lora=0, kv_lora=512, rope_dim=64, nope_dim=128,
        value_dim=128, ffn=10944, expert_ffn=1408, experts=64, used=6, shared=2, dense_lead=1,
        vocab=102400, sigmoid=False, absorbed=False,
    )  # fmt: skip


def deepseek_v4_flash() -> Shape:
    return families.deepseek4(
        hidden=4096, heads=64, head_dim=512, rope_dim=64, q_lora=1024, o_lora=1024, o_groups=8,
        ratios=[0, 0, *([4, 128] * 21)[:41]], expert_ffn=2048, experts=256, used=6, shared=1,
        hash_layers=3, indexer_heads=64, indexer_dim=128, indexer_top_k=512, vocab=129280,
    )  # fmt: skip


def deepseek_v4_pro(mtp: int = 1) -> Shape:
    return families.deepseek4(
        hidden=7168, heads=128, head_dim=512, rope_dim=64, q_lora=1536, o_lora=1024, o_groups=16,
        ratios=[128, 128, *([4, 128] * 30)[:59], *[0] * mtp], expert_ffn=3072, experts=384,
        used=6, shared=1, hash_layers=3, indexer_heads=64, indexer_dim=128, indexer_top_k=1024,
        vocab=129280, mtp=mtp,
    )  # fmt: skip


def qwen15_moe_a27b() -> Shape:
    return families.qwen2moe(
        layers=24, hidden=2048, heads=16, kv_heads=16, ffn=5632, expert_ffn=1408, shared_ffn=5632,
        experts=60, used=4, vocab=151936, context=8192,
    )  # fmt: skip


def qwen2_57b_a14b() -> Shape:
    return families.qwen2moe(
        layers=28, hidden=3584, heads=28, kv_heads=4, ffn=18944, expert_ffn=2560,
        shared_ffn=20480, experts=64, used=8, vocab=151936,
    )  # fmt: skip


def olmoe_1b_7b() -> Shape:
    return families.olmoe(
        layers=16, hidden=2048, heads=16, kv_heads=16, ffn=1024, experts=64, used=8, vocab=50304
    )


def gpt_oss_20b() -> Shape:
    return families.gpt_oss(
        layers=24, hidden=2880, heads=64, kv_heads=8, head_dim=64, expert_ffn=2880, experts=32,
        used=4, vocab=201088,
    )  # fmt: skip


def glm_45_air(mtp: int = 1) -> Shape:
    return families.glm4moe(
        layers=46, hidden=4096, heads=96, kv_heads=8, head_dim=128, ffn=10944, expert_ffn=1408,
        experts=128, used=8, shared=1, dense_lead=1, vocab=151552, mtp=mtp,
    )  # fmt: skip


def granite_3_3b_a800m() -> Shape:
    return families.granitemoe(
        layers=32, hidden=1536, heads=24, kv_heads=8, ffn=512, experts=40, used=8, vocab=49155
    )


def lfm2_8b_a1b() -> Shape:
    return families.lfm2(
        layers=24, hidden=2048, heads=32, kv_heads=8, attention_layers=(2, 6, 10, 14, 18, 21),
        ffn=7168, vocab=65536, expert_ffn=1792, experts=32, used=4, dense_lead=2,
    )  # fmt: skip


def lfm2_12b() -> Shape:
    return families.lfm2(
        layers=16, hidden=2048, heads=32, kv_heads=8, attention_layers=(2, 5, 8, 10, 12, 14),
        ffn=8192, vocab=65536,
    )  # fmt: skip


def smollm2_135m() -> Shape:
    return families.llama(
        layers=30, hidden=576, heads=9, kv_heads=3, ffn=1536, vocab=49152, tied=True, context=8192
    )


def qwen25_05b() -> Shape:
    return families.llama(
        layers=24, hidden=896, heads=14, kv_heads=2, ffn=4864, vocab=151936, tied=True,
        architecture="qwen2", bias=True,
    )  # fmt: skip


def qwen3_06b() -> Shape:
    return families.llama(
        layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, ffn=3072, vocab=151936,
        tied=True, architecture="qwen3", qk_norm=True, context=40960,
    )  # fmt: skip


def gemma3_1b() -> Shape:
    return families.gemma3(
        layers=26, hidden=1152, heads=4, kv_heads=1, head_dim=256, ffn=6912, vocab=262144,
        window=512, context=32768,
    )  # fmt: skip


PUBLISHED: dict[str, Callable[[], Shape]] = {
    "Qwen3.6-35B-A3B": qwen36_35b_a3b,
    "Qwen3.6-27B": qwen36_27b,
    "Qwen3-Next-80B-A3B": qwen3_next_80b_a3b,
    "Qwen3-30B-A3B": qwen3_30b_a3b,
    "Mixtral-8x7B": mixtral_8x7b,
    "Mixtral-8x22B": mixtral_8x22b,
    "DeepSeek-V3": deepseek_v3,
    "DeepSeek-V2-Lite": deepseek_v2_lite,
    "DeepSeek-V4-Flash": deepseek_v4_flash,
    "DeepSeek-V4-Pro": deepseek_v4_pro,
    "Qwen1.5-MoE-A2.7B": qwen15_moe_a27b,
    "Qwen2-57B-A14B": qwen2_57b_a14b,
    "OLMoE-1B-7B": olmoe_1b_7b,
    "gpt-oss-20b": gpt_oss_20b,
    "GLM-4.5-Air": glm_45_air,
    "Granite-3-3B-A800M": granite_3_3b_a800m,
    "LFM2-8B-A1B": lfm2_8b_a1b,
    "LFM2-1.2B": lfm2_12b,
    "SmolLM2-135M": smollm2_135m,
    "Qwen2.5-0.5B": qwen25_05b,
    "Qwen3-0.6B": qwen3_06b,
    "Gemma-3-1B": gemma3_1b,
}
