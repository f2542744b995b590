"""What an engine is told, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Source = Literal["measured", "file", "computed", "assumed", "user"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Engine settings, in moestro's words. The cache holds `context × parallel` tokens.

    `gpu_layers` None leaves the split to the engine's own fitter. `prompt_cache_bytes` bounds the
    engine's prompt cache on the host; `context_checkpoints` counts copies of a slot's recurrent
    state.
    """

    context: int
    parallel: int
    threads: int
    ubatch: int = 512
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    unified: bool = False
    gpu_layers: int | None = None
    mtp_depth: int = 0
    prompt_cache_bytes: int = 0
    context_checkpoints: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a setting has its value, and where the knowledge comes from."""

    setting: str
    because: str
    source: Source

    def to_json(self) -> dict[str, str]:
        return {"setting": self.setting, "because": self.because, "source": self.source}
