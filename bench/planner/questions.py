"""The questions that every planner gets, as data.

A memory question has a truth: what the engine's own allocator takes. A deciding question names a
machine; its truth follows from the same figures (see `memory_table.py`). Tokens per second on a
machine that nobody measured here have no truth: the answers are listed, not judged.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """`gpu_memory_bytes` is what the driver reports, `gpu_label_gb` what the box says;
    `description` says it to moestro."""

    name: str
    description: str
    gpu: str
    gpu_memory_bytes: int
    gpu_label_gb: int
    ram_bytes: int
    ram_channels: int
    ram_megatransfers: int


# A GeForce RTX 4090 reports 24,564 MiB to its driver.
RTX_4090 = Hardware(
    "rtx-4090", "rtx-4090, 64 GiB DDR5-5600 dual channel",
    "RTX 4090", 24_564 * 2**20, 24, 64 * GIB, 2, 5600,
)  # fmt: skip
SERVER = Hardware(
    "rtx-4090 + 512 GiB", "rtx-4090, 512 GiB DDR5-4800 12 channels",
    "RTX 4090", 24_564 * 2**20, 24, 512 * GIB, 12, 4800,
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """`context` is in tokens per stream: the cache holds context × parallel of them."""

    model: str
    context: int
    parallel: int = 1
    cache_type: str = "f16"
    ubatch: int = 512
    hardware: Hardware | None = None

    @property
    def name(self) -> str:
        words = [self.model, f"{self.context // 1024}k"]
        if self.parallel > 1:
            words.append(f"×{self.parallel}")
        if self.cache_type != "f16":
            words.append(self.cache_type)
        if self.ubatch != 512:
            words.append(f"ubatch {self.ubatch}")
        if self.hardware is not None:
            words.append(f"on {self.hardware.name}")
        return " ".join(words)


MEMORY = (
    Question("Qwen3-30B-A3B", 8192),
    Question("Qwen3-30B-A3B", 8192, cache_type="q8_0"),
    Question("Qwen3-30B-A3B", 8192, ubatch=2048),
    Question("Qwen3-30B-A3B", 131072),
    Question("Mixtral-8x7B", 8192),
    Question("Qwen3.6-35B-A3B", 8192),
    Question("Qwen3.6-35B-A3B", 262144),
    Question("Qwen3.6-35B-A3B", 8192, parallel=4),
    Question("Qwen3.6-27B", 8192),
    Question("DeepSeek-V3", 8192),
    Question("gpt-oss-20b", 131072),
    Question("gpt-oss-120b", 8192),
    Question("Gemma-3-27B", 32768),
    Question("GLM-4.5-Air", 8192),
    Question("Llama-3.1-8B", 8192),
)

DECIDING = (
    Question("Qwen3.6-35B-A3B", 8192, hardware=RTX_4090),
    Question("Qwen3.6-35B-A3B", 262144, hardware=RTX_4090),
    Question("Qwen3-30B-A3B", 8192, hardware=RTX_4090),
    Question("Mixtral-8x7B", 8192, hardware=RTX_4090),
    Question("GLM-4.5-Air", 8192, hardware=RTX_4090),
    Question("gpt-oss-120b", 8192, hardware=RTX_4090),
    Question("DeepSeek-V3", 8192, hardware=RTX_4090),
    Question("DeepSeek-V3", 8192, hardware=SERVER),
)

QUESTIONS = MEMORY + DECIDING
