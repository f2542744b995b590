"""The models and the questions that speed is measured on.

`TEST` is what forecasts are judged by, and never a source of constants. `DEVELOPMENT` has other
shapes, for whoever works on the forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.shapes import families
from tests.shapes.shape import Shape, TypeChooser

from bench.planner.random_models import recipe, write_random
from moestro.planning.settings import CacheType, Settings


@dataclass(frozen=True, slots=True)
class Model:
    """A shape under a quantization."""

    shape_name: str
    quantization: str
    make: Callable[[], Shape]

    @property
    def name(self) -> str:
        return f"{self.shape_name}-{self.quantization}"

    def types(self) -> TypeChooser:
        return recipe(self.quantization, self.make())

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name}.gguf"

    def write(self, folder: Path) -> Path:
        """Writes the file, or finds it written."""
        path = self.path(folder)
        if not path.exists():
            write_random(self.make(), self.types(), path, name=self.name)
        return path


@dataclass(frozen=True, slots=True)
class Case:
    """One engine start: `streams` requests at once, each with `depth` tokens before its answer.

    `prompt` is the length of the prompts on which reading is measured, one stream alone, from an
    empty cache; 0 leaves that out. `answer` is the number of tokens that each stream writes while
    it is measured.
    """

    model: str
    depth: int = 0
    streams: int = 1
    prompt: int = 0
    answer: int = 80
    ubatch: int = 512
    threads: int = 2
    cache_type: CacheType = "f16"

    @property
    def name(self) -> str:
        parts = [self.model, f"d{self.depth}", f"s{self.streams}"]
        if self.ubatch != 512:
            parts.append(f"ub{self.ubatch}")
        if self.threads != 2:
            parts.append(f"t{self.threads}")
        if self.cache_type != "f16":
            parts.append(self.cache_type)
        return " ".join(parts)

    @property
    def settings(self) -> Settings:
        """As for a user whose streams are just long enough; the state of hybrids is not copied."""
        longest = max(self.prompt, self.depth + self.lead + self.answer) + 16
        return Settings(
            context=-(-longest // 256) * 256,
            parallel=self.streams,
            threads=self.threads,
            ubatch=self.ubatch,
            cache_type_k=self.cache_type,
            cache_type_v=self.cache_type,
            prompt_cache_bytes=0,
            context_checkpoints=0,
        )

    @property
    def lead(self) -> int:
        """Tokens that the first stream may write before the last one has read its prompt."""
        if self.streams == 1:
            return 0
        return self.streams * (1 + -(-max(self.depth, 16) // self.ubatch)) + 8


def _qwen3moe(layers: int, hidden: int, heads: int, experts: int, expert_ffn: int) -> Shape:
    return families.qwen3moe(
        layers=layers, hidden=hidden, heads=heads, kv_heads=4, head_dim=128, ffn=hidden * 3,
        expert_ffn=expert_ffn, experts=experts, used=8, vocab=151936, tied=hidden < 2048,
    )  # fmt: skip


def _mixtral(layers: int, hidden: int, ffn: int, kv_heads: int = 8) -> Shape:
    return families.llama(
        layers=layers, hidden=hidden, heads=hidden // 64, kv_heads=kv_heads, ffn=ffn, vocab=32000,
        experts=8, used=2,
    )  # fmt: skip


def _deepseek2(
    layers: int, hidden: int, heads: int, experts: int, expert_ffn: int, q_lora: int
) -> Shape:
    return families.deepseek2(
        layers=layers, hidden=hidden, heads=heads, q_lora=q_lora, kv_lora=512, rope_dim=64,
        nope_dim=128, value_dim=128, ffn=hidden * 4, expert_ffn=expert_ffn, experts=experts,
        used=6, shared=2, dense_lead=1, vocab=102400,
    )  # fmt: skip


def _hybrid_moe(layers: int, hidden: int, experts: int, expert_ffn: int, mtp: int = 0) -> Shape:
    return families.qwen35(
        layers=layers, hidden=hidden, heads=8, kv_heads=2, head_dim=256, linear_v_heads=16,
        linear_k_heads=8, linear_dim=128, expert_ffn=expert_ffn, shared_ffn=expert_ffn,
        experts=experts, used=8, vocab=248320, mtp=mtp,
    )  # fmt: skip


def _hybrid_dense(layers: int, hidden: int, ffn: int) -> Shape:
    return families.qwen35(
        layers=layers, hidden=hidden, heads=8, kv_heads=2, head_dim=256, linear_v_heads=16,
        linear_k_heads=16, linear_dim=128, ffn=ffn, vocab=248320, tied=True,
    )  # fmt: skip


def _gpt_oss(layers: int, hidden: int, experts: int) -> Shape:
    return families.gpt_oss(
        layers=layers, hidden=hidden, heads=hidden // 360 * 8, kv_heads=8, head_dim=64,
        expert_ffn=hidden, experts=experts, used=4, vocab=201088,
    )  # fmt: skip


def _llama(layers: int, hidden: int, ffn: int, kv_heads: int = 8, head_dim: int = 64) -> Shape:
    return families.llama(
        layers=layers, hidden=hidden, heads=hidden // head_dim, kv_heads=kv_heads, ffn=ffn,
        vocab=128256, tied=True, head_dim=head_dim, context=131072,
    )  # fmt: skip


def _qwen3(layers: int, hidden: int, ffn: int) -> Shape:
    return families.llama(
        layers=layers, hidden=hidden, heads=hidden // 64, kv_heads=8, head_dim=128, ffn=ffn,
        vocab=151936, tied=True, architecture="qwen3", qk_norm=True, context=40960,
    )  # fmt: skip


def _gemma3(layers: int, hidden: int, ffn: int) -> Shape:
    return families.gemma3(
        layers=layers, hidden=hidden, heads=4, kv_heads=1, head_dim=256, ffn=ffn, vocab=262144,
        window=512,
    )  # fmt: skip


def _granitemoe(layers: int, hidden: int, experts: int, ffn: int) -> Shape:
    return families.granitemoe(
        layers=layers, hidden=hidden, heads=hidden // 64, kv_heads=8, ffn=ffn, experts=experts,
        used=8, vocab=49155, context=131072,
    )  # fmt: skip


def _lfm2moe(layers: int, hidden: int, experts: int, expert_ffn: int) -> Shape:
    return families.lfm2(
        layers=layers, hidden=hidden, heads=hidden // 64, kv_heads=8,
        attention_layers=tuple(range(2, layers, 4)), ffn=hidden * 3, vocab=65536,
        expert_ffn=expert_ffn, experts=experts, used=4, dense_lead=2,
    )  # fmt: skip


def _small_llama(layers: int) -> Shape:
    return families.llama(
        layers=layers, hidden=576, heads=9, kv_heads=3, ffn=1536, vocab=49152, tied=True,
        context=32768,
    )  # fmt: skip


SHAPES: dict[str, Callable[[], Shape]] = {
    # Of the test.
    "qwen3moe-1.6b": lambda: _qwen3moe(14, 1024, 16, 64, 512),
    "qwen3moe-4.9b": lambda: _qwen3moe(12, 2048, 32, 72, 768),
    "mixtral-1.5b": lambda: _mixtral(16, 1024, 3584),
    "mixtral-5.9b": lambda: _mixtral(16, 2048, 7168),
    "qwen35moe-2.2b": lambda: _hybrid_moe(16, 1024, 128, 256),
    "qwen35-0.8b": lambda: _hybrid_dense(24, 1024, 3584),
    "deepseek2-2b": lambda: _deepseek2(12, 1024, 16, 64, 768, q_lora=512),
    "gpt-oss-2.2b": lambda: _gpt_oss(8, 1440, 32),
    "llama-1.2b": lambda: _llama(16, 2048, 8192),
    "llama-3.2b": lambda: _llama(28, 3072, 8192, head_dim=128),
    "qwen3-0.6b": lambda: _qwen3(28, 1024, 3072),
    "gemma3-1b": lambda: _gemma3(26, 1152, 6912),
    "granitemoe-1.3b": lambda: _granitemoe(24, 1024, 32, 512),
    "lfm2moe-1.6b": lambda: _lfm2moe(16, 1024, 32, 1024),
    "smollm-0.1b": lambda: _small_llama(30),
    # Of development: no shape of the test is among them.
    "dev-qwen3moe-0.7b": lambda: _qwen3moe(10, 768, 12, 48, 512),
    "dev-mixtral-0.8b": lambda: _mixtral(12, 768, 3072, kv_heads=4),
    "dev-qwen35moe-1.1b": lambda: _hybrid_moe(12, 768, 96, 256),
    "dev-deepseek2-0.8b": lambda: _deepseek2(10, 768, 12, 48, 512, q_lora=768),
    "dev-gpt-oss-1.0b": lambda: _gpt_oss(6, 1152, 24),
    "dev-llama-0.6b": lambda: _llama(12, 1536, 6144),
    "dev-qwen3-1.7b": lambda: _qwen3(24, 2048, 6144),
    "dev-gemma3-0.4b": lambda: _gemma3(18, 768, 4608),
}  # fmt: skip


def _models(*names: str) -> dict[str, Model]:
    """`names` are `SHAPE QUANTIZATION …`."""
    models = {}
    for line in names:
        shape_name, *quantizations = line.split()
        for quantization in quantizations:
            model = Model(shape_name, quantization, SHAPES[shape_name])
            models[model.name] = model
    return models


MODELS = _models(
    "qwen3moe-1.6b Q4_K_M Q8_0",
    "qwen3moe-4.9b Q4_K_M IQ4_XS",
    "mixtral-1.5b Q4_0",
    "mixtral-5.9b Q4_K_M",
    "qwen35moe-2.2b Q4_K_M",
    "qwen35-0.8b Q8_0",
    "deepseek2-2b Q4_K_M Q5_K_M",
    "gpt-oss-2.2b MXFP4",
    "llama-1.2b Q4_K_M Q4_0 Q8_0",
    "llama-3.2b Q4_K_M",
    "qwen3-0.6b Q6_K F16",
    "gemma3-1b Q4_0",
    "granitemoe-1.3b Q5_K_M",
    "lfm2moe-1.6b Q4_K_M",
    "smollm-0.1b Q8_0",
    "dev-qwen3moe-0.7b Q4_K_M",
    "dev-mixtral-0.8b Q8_0",
    "dev-qwen35moe-1.1b Q4_K_M",
    "dev-deepseek2-0.8b Q4_K_M",
    "dev-gpt-oss-1.0b MXFP4",
    "dev-llama-0.6b Q4_0 F16",
    "dev-qwen3-1.7b Q6_K",
    "dev-gemma3-0.4b IQ4_XS",
)

TEST = (
    Case("qwen3moe-1.6b-Q4_K_M", prompt=512),
    Case("qwen3moe-1.6b-Q4_K_M", threads=1, prompt=256),
    Case("qwen3moe-1.6b-Q4_K_M", depth=8192),
    Case("qwen3moe-1.6b-Q4_K_M", streams=4, ubatch=128, prompt=512),
    Case("qwen3moe-1.6b-Q8_0", depth=1024, streams=8, answer=48),
    Case("qwen3moe-4.9b-Q4_K_M", prompt=256),
    Case("qwen3moe-4.9b-Q4_K_M", depth=1024, streams=2),
    Case("qwen3moe-4.9b-IQ4_XS", streams=4, prompt=256, answer=64),
    Case("mixtral-1.5b-Q4_0", prompt=1024, ubatch=1024),
    Case("mixtral-1.5b-Q4_0", depth=1024, streams=4, answer=64),
    Case("mixtral-5.9b-Q4_K_M", prompt=256, answer=64),
    Case("mixtral-5.9b-Q4_K_M", streams=2, answer=64),
    Case("qwen35moe-2.2b-Q4_K_M", prompt=512),
    Case("qwen35moe-2.2b-Q4_K_M", depth=8192),
    Case("qwen35moe-2.2b-Q4_K_M", depth=1024, streams=4, answer=64),
    Case("qwen35-0.8b-Q8_0", prompt=512),
    Case("qwen35-0.8b-Q8_0", depth=2048),
    Case("deepseek2-2b-Q4_K_M", prompt=512),
    Case("deepseek2-2b-Q4_K_M", depth=4096),
    Case("deepseek2-2b-Q5_K_M", depth=1024, streams=2),
    Case("gpt-oss-2.2b-MXFP4", prompt=512),
    Case("gpt-oss-2.2b-MXFP4", depth=4096),
    Case("gpt-oss-2.2b-MXFP4", streams=8, answer=64),
    Case("llama-1.2b-Q4_K_M", prompt=256),
    Case("llama-1.2b-Q4_0", depth=2048),
    Case("llama-1.2b-Q8_0", streams=4, ubatch=256, prompt=256, answer=64),
    Case("llama-3.2b-Q4_K_M", prompt=128, answer=64),
    Case("qwen3-0.6b-Q6_K", depth=2048),
    Case("qwen3-0.6b-Q6_K", depth=4096, cache_type="q8_0"),
    Case("qwen3-0.6b-F16", streams=2, prompt=256),
    Case("gemma3-1b-Q4_0", prompt=256),
    Case("gemma3-1b-Q4_0", depth=4096),
    Case("granitemoe-1.3b-Q5_K_M", prompt=512),
    Case("granitemoe-1.3b-Q5_K_M", depth=512, streams=8, answer=64),
    Case("lfm2moe-1.6b-Q4_K_M", prompt=512),
    Case("smollm-0.1b-Q8_0", prompt=512),
    Case("smollm-0.1b-Q8_0", depth=16384),
    Case("smollm-0.1b-Q8_0", depth=1024, streams=4),
)

DEVELOPMENT = (
    Case("dev-qwen3moe-0.7b-Q4_K_M", prompt=512),
    Case("dev-qwen3moe-0.7b-Q4_K_M", depth=2048, streams=2),
    Case("dev-mixtral-0.8b-Q8_0", streams=4, prompt=256),
    Case("dev-qwen35moe-1.1b-Q4_K_M", depth=4096),
    Case("dev-deepseek2-0.8b-Q4_K_M", depth=4096),
    Case("dev-gpt-oss-1.0b-MXFP4", depth=2048),
    Case("dev-llama-0.6b-Q4_0", prompt=256),
    Case("dev-llama-0.6b-Q4_0", streams=8, answer=64),
    Case("dev-llama-0.6b-F16", depth=1024),
    Case("dev-qwen3-1.7b-Q6_K", prompt=256),
    Case("dev-gemma3-0.4b-IQ4_XS", depth=2048),
)

SETS = {"test": TEST, "development": DEVELOPMENT}
