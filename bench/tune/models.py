"""The models of the tuner's benches: random weights of true sizes and types, and the demo.

    python -m bench.tune.models             # writes those that are not there, 6 GB

Mixtures that both llama.cpp and ik_llama.cpp load, of four families and four quantizations; larger
ones of the planner's bench may be named as well. With random weights no draft is ever right, so
their acceptance is set (see `EngineRequest.synthetic_acceptance`); the demo's is its own.
"""

from __future__ import annotations

from pathlib import Path

from tests.shapes import families
from tests.shapes.shape import Shape

from bench.cache import cache_folder
from bench.planner.cases import MODELS, Model
from moestro import demo

VOCAB = 65536
"""Smaller than Qwen's own, so that the head of a small model weighs as much as in a large one."""


def _dense(layers: int, hidden: int, ffn: int) -> Shape:
    return families.qwen35(
        layers=layers, hidden=hidden, heads=hidden // 128, kv_heads=2, head_dim=256,
        linear_v_heads=hidden // 64, linear_k_heads=hidden // 128, linear_dim=128, ffn=ffn,
        vocab=VOCAB, mtp=1,
    )  # fmt: skip


def _mixture(layers: int, hidden: int, experts: int, expert_ffn: int) -> Shape:
    return families.qwen35(
        layers=layers, hidden=hidden, heads=hidden // 128, kv_heads=2, head_dim=256,
        linear_v_heads=hidden // 64, linear_k_heads=hidden // 128, linear_dim=128,
        expert_ffn=expert_ffn, shared_ffn=expert_ffn, experts=experts, used=8, vocab=VOCAB, mtp=1,
    )  # fmt: skip


def _granite() -> Shape:
    shape = families.granitemoe(
        layers=10, hidden=1024, heads=16, kv_heads=8, ffn=512, experts=32, used=8, vocab=49155,
        context=32768,
    )  # fmt: skip
    # ik_llama.cpp takes none without these.
    shape.set(residual_scale=0.22, embedding_scale=12.0, **{"attention.scale": 0.015625})
    return shape


MIXTURES = {
    model.name: model
    for model in (
        Model(
            "qwen3moe-0.7b",
            "Q4_K_M",
            lambda: families.qwen3moe(
                layers=8, hidden=1024, heads=16, kv_heads=4, head_dim=128, ffn=3072,
                expert_ffn=512, experts=48, used=8, vocab=VOCAB, tied=True,
            ),
        ),
        Model(
            "mixtral-0.5b",
            "Q4_0",
            lambda: families.llama(
                layers=10, hidden=1024, heads=16, kv_heads=4, ffn=1536, vocab=32000, experts=8,
                used=2,
            ),
        ),
        Model("granitemoe-0.6b", "Q5_K_M", _granite),
        Model(
            "qwen2moe-0.7b",
            "IQ4_XS",
            lambda: families.qwen2moe(
                layers=8, hidden=1024, heads=16, kv_heads=4, ffn=3072, expert_ffn=512,
                shared_ffn=1024, experts=40, used=4, vocab=VOCAB,
            ),
        ),
    )
}  # fmt: skip
"""Of 0.3 B parameters and more; both engines load them."""

LARGER = tuple(MIXTURES)

DRAFTING = {
    model.name: model
    for model in (
        Model("mtp-qwen35-0.1b", "Q8_0", lambda: _dense(8, 512, 2048)),
        Model("mtp-qwen35-0.7b", "Q4_K_M", lambda: _dense(24, 1024, 4096)),
        Model("mtp-qwen35-0.7b", "F16", lambda: _dense(24, 1024, 4096)),
        Model("mtp-qwen35-2b", "Q4_K_M", lambda: _dense(24, 2048, 6144)),
        Model("mtp-qwen35moe-0.4b", "Q4_K_M", lambda: _mixture(8, 512, 64, 256)),
        Model("mtp-qwen35moe-1.6b", "Q4_K_M", lambda: _mixture(16, 1024, 96, 256)),
    )
}


def folder() -> Path:
    """Where they are kept."""
    path = cache_folder() / "random-models"
    path.mkdir(exist_ok=True)
    return path


def model_path(name: str) -> Path:
    """The file of `name`, written if it is not there; "demo" is the embedded model."""
    if name == "demo":
        return demo.model_path()
    return {**MODELS, **MIXTURES, **DRAFTING}[name].write(folder())


def main() -> None:
    for name in (*LARGER, *DRAFTING):
        path = model_path(name)
        print(f"{name:28} {path.stat().st_size / 2**30:5.2f} GiB  {path}", flush=True)


if __name__ == "__main__":
    main()
