"""The models of the tuner's benches: random weights of true sizes and types, and the demo.

    python -m bench.tune.models             # writes those that are not there, 10 GB

Mixtures that both llama.cpp and ik_llama.cpp load are those of the planner's bench; those with an
MTP layer are made here. With random weights no draft is ever right, so their acceptance is set (see
`EngineRequest.synthetic_acceptance`); the demo's is its own.
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

LARGER = (
    "qwen3moe-1.6b-Q4_K_M",
    "mixtral-1.5b-Q4_0",
    "granitemoe-1.3b-Q5_K_M",
    "qwen3moe-4.9b-IQ4_XS",
)
"""Mixtures of 0.3 B parameters and more that both engines load."""


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


DRAFTING = {
    model.name: model
    for model in (
        Model("mtp-qwen35-0.1b", "Q8_0", lambda: _dense(8, 512, 2048)),
        Model("mtp-qwen35-0.7b", "Q4_K_M", lambda: _dense(24, 1024, 4096)),
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
    return {**MODELS, **DRAFTING}[name].write(folder())


def main() -> None:
    for name in (*LARGER, *DRAFTING):
        path = model_path(name)
        print(f"{name:28} {path.stat().st_size / 2**30:5.2f} GiB  {path}", flush=True)


if __name__ == "__main__":
    main()
