"""The model files of the questions: headers of true shapes, sparse but of the true length."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.shapes import PUBLISHED, Shape, families, mxfp4, write_header
from tests.shapes.shape import TypeChooser, keep_f32

from bench.planner import configs


def q4_k_m_of(shape: Shape) -> TypeChooser:
    """The types that llama.cpp's own quantizer gives this shape for Q4_K_M.

    More bits go to the first and last eighth of the layers and to every third between, for value
    and down projections; models of eight experts keep more in attention. With it the files of
    Qwen3-30B-A3B and Mixtral-8x7B have the size of the published ones (17,691 and 27,129 MiB).
    """
    layers = shape.metadata[f"{shape.architecture}.block_count"]
    eight = shape.metadata.get(f"{shape.architecture}.expert_count") == 8
    values = [t.name for t in shape.tensors if ".attn_v." in t.name]
    tied = all(t.name != "output.weight" for t in shape.tensors)

    def more_bits(index: int, count: int) -> bool:
        eighth = count // 8
        return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2

    def wanted(name: str) -> str:
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            return "Q6_K"
        if ".attn_v." in name:
            more = more_bits(values.index(name), len(values))
            return "Q8_0" if eight else ("Q6_K" if more else "Q4_K")
        if eight and ".attn_k." in name:
            return "Q8_0"
        if eight and ".attn_output." in name:
            return "Q5_K"
        if ".ffn_down" in name and more_bits(int(name.split(".")[1]), layers):
            return "Q6_K"
        return "Q4_K"

    def choose(name: str, dims: tuple[int, ...]) -> str:
        if keep_f32(name, dims) or name.endswith(".bias"):
            return "F32"
        kind = wanted(name)
        if dims[0] % 256 and kind.endswith("_K"):  # rows too short for blocks of 256
            return {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}[kind]
        return kind

    return choose


def mxfp4_of(shape: Shape) -> TypeChooser:
    """gpt-oss as it is published: experts in MXFP4."""
    return mxfp4


@dataclass(frozen=True)
class ModelFile:
    """`hub` is the repository that peers with a model list of their own know it by; `quantization`
    the name they call this file's types by."""

    name: str
    hub: str
    shape: Callable[[], Shape]
    config: configs.Config
    types: Callable[[Shape], TypeChooser] = q4_k_m_of
    quantization: str = "Q4_K_M"

    @property
    def slug(self) -> str:
        return self.name.lower()

    def write(self, folder: Path) -> Path:
        """The header and, beside it, the `config.json`; what is there already stays."""
        here = folder / self.slug
        path = here / f"{self.name}-{self.quantization}.gguf"
        if not path.exists():
            here.mkdir(parents=True, exist_ok=True)
            (here / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
            shape = self.shape()
            write_header(shape, path, types=self.types(shape))
        return path


def gpt_oss_120b() -> Shape:
    return families.gpt_oss(
        layers=36, hidden=2880, heads=64, kv_heads=8, head_dim=64, expert_ffn=2880, experts=128,
        used=4, vocab=201088,
    )  # fmt: skip


def gemma3_27b() -> Shape:
    return families.gemma3(
        layers=62, hidden=5376, heads=32, kv_heads=16, head_dim=128, ffn=21504, vocab=262208,
        window=1024,
    )  # fmt: skip


def llama31_8b() -> Shape:
    return families.llama(
        layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256, context=131072
    )


MODELS = {
    model.name: model
    for model in (
        ModelFile("Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B", PUBLISHED["Qwen3-30B-A3B"],
                  configs.QWEN3_30B_A3B),
        ModelFile("Mixtral-8x7B", "mistralai/Mixtral-8x7B-Instruct-v0.1",
                  PUBLISHED["Mixtral-8x7B"], configs.MIXTRAL_8X7B),
        ModelFile("Qwen3.6-35B-A3B", "Qwen/Qwen3.6-35B-A3B", PUBLISHED["Qwen3.6-35B-A3B"],
                  configs.QWEN36_35B_A3B),
        ModelFile("Qwen3.6-27B", "Qwen/Qwen3.6-27B", PUBLISHED["Qwen3.6-27B"],
                  configs.QWEN36_27B),
        ModelFile("DeepSeek-V3", "deepseek-ai/DeepSeek-V3", PUBLISHED["DeepSeek-V3"],
                  configs.DEEPSEEK_V3),
        ModelFile("gpt-oss-20b", "openai/gpt-oss-20b", PUBLISHED["gpt-oss-20b"],
                  configs.GPT_OSS_20B, mxfp4_of, "MXFP4"),
        ModelFile("gpt-oss-120b", "openai/gpt-oss-120b", gpt_oss_120b,
                  configs.GPT_OSS_120B, mxfp4_of, "MXFP4"),
        ModelFile("Gemma-3-27B", "google/gemma-3-27b-it", gemma3_27b, configs.GEMMA3_27B),
        ModelFile("GLM-4.5-Air", "zai-org/GLM-4.5-Air", PUBLISHED["GLM-4.5-Air"],
                  configs.GLM_45_AIR),
        ModelFile("Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", llama31_8b,
                  configs.LLAMA_31_8B),
    )
}  # fmt: skip
