"""What an engine is told, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
FlashAttention = Literal["auto", "on", "off"]
LoadMode = Literal["auto", "mmap", "none", "mlock"]
Ngram = Literal["off", "simple", "map-k", "map-k4v", "mod", "cache"]
Source = Literal["measured", "file", "computed", "assumed", "user"]


Family = Literal["llama.cpp", "ik_llama.cpp"]
"""Whose server an engine is: what its settings mean, and how it takes memory."""

EMBEDDED = "embedded"
"""The engine that comes with moestro; see `moestro.engine.registry` for others."""


@dataclass(frozen=True, slots=True)
class PlannedEngine:
    """The engine that a plan was made for. `version` is None where it was not said."""

    id: str = EMBEDDED
    family: Family = "llama.cpp"
    version: str | None = None

    @property
    def attends_in_slots(self) -> bool:
        """Whether flash attention works in several slots. That of ik_llama.cpp 0.1.5 stops the
        whole engine on a long prompt in any slot but the first: GGML_ASSERT(S > 0)."""
        return self.family != "ik_llama.cpp"

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)

    @staticmethod
    def called(name: str) -> PlannedEngine:
        """What an id tells by itself: those that moestro built begin with their family's name."""
        return PlannedEngine(
            name, "ik_llama.cpp" if name.startswith("ik_llama.cpp") else "llama.cpp"
        )


NGRAM_DRAFTS: dict[Ngram, int] = {
    "off": 0, "simple": 48, "map-k": 48, "map-k4v": 48, "mod": 64, "cache": 8,
}  # fmt: skip
"""Tokens that a draft from the text has at most (`common_speculative_n_max`, its defaults)."""

ACCELERATED_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Settings:
    """Engine settings, in moestro's words. The cache holds `context × parallel` tokens.

    Placement. `gpu_layers` counts blocks from the last one backwards, the output head first and
    the MTP blocks among them, as llama.cpp does; None takes all of them where there is a GPU.
    `cpu_expert_layers` counts the blocks *with routed experts*, from the first one on, whose
    experts stay in host memory although the block is on a GPU; blocks without experts in front of
    them do not count. `tensor_split` gives each GPU's share of the blocks on GPUs; None splits by
    free memory. `expert_cache_bytes` is the size, on all GPUs together, of the cache for experts
    that stay in host memory; the engine shares it among the GPUs like the blocks. `cache_on_host`
    keeps the KV cache in host memory.

    Bounds. `prompt_cache_bytes` bounds the engine's prompt cache on the host;
    `context_checkpoints` counts the copies of a slot's state that it may keep.

    Computing. `engine` names which program runs the model. `threads` write tokens; `threads_batch`
    read prompts, None as many. `batch` is how many tokens the engine takes at once, None what
    follows from the others. `repack` lets it rearrange weights for this CPU while it loads them:
    llama.cpp in copies, ik_llama.cpp in place (its `--run-time-repack`). `load_mode` is how the
    file comes to memory: mapped, read ("none"), read and locked, or as the engine likes.

    Speculation. `mtp_depth` tokens are drafted by the MTP layers at once, fewer where one's
    probability is below `mtp_p_min`; `ngram` drafts what followed the last words earlier in the
    text.
    """

    context: int
    parallel: int
    threads: int
    ubatch: int = 512
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: FlashAttention = "auto"
    unified: bool = False
    gpu_layers: int | None = None
    cpu_expert_layers: int = 0
    tensor_split: tuple[float, ...] | None = None
    expert_cache_bytes: int = 0
    cache_on_host: bool = False
    mtp_depth: int = 0
    prompt_cache_bytes: int = 0
    context_checkpoints: int = 0
    engine: str = EMBEDDED
    threads_batch: int | None = None
    batch: int | None = None
    repack: bool = True
    load_mode: LoadMode = "auto"
    mtp_p_min: float = 0.0
    ngram: Ngram = "off"

    @property
    def drafts(self) -> int:
        """Tokens that a stream may have drafted at once; two ways to draft take turns."""
        return max(self.mtp_depth, NGRAM_DRAFTS[self.ngram])

    @property
    def outputs(self) -> int:
        """One next token of every stream, drafts included."""
        return self.parallel * (1 + self.drafts)

    def tokens_at_once(self, *, accelerated: bool) -> int:
        """The engine's batch: `batch`, or what follows from the others.

        A stream's next token waits for the whole batch that holds another stream's prompt. On a CPU
        one of 2048 tokens takes seconds and is no faster than its parts; several GPUs need it
        whole. Below one output of every stream, drafts included, the engine ends on a failed
        assertion.
        """
        if self.batch is not None:
            return max(self.batch, self.outputs)
        return max(ACCELERATED_BATCH if accelerated else 0, self.ubatch, self.outputs)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Settings:
        """The inverse of `to_json`; keys that a newer version added raise TypeError."""
        split = data.get("tensor_split")
        return Settings(**{**data, "tensor_split": None if split is None else tuple(split)})


INT_MAX = (1 << 31) - 1
"""The engine counts in 32 bits with a sign."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a setting has its value, and where the knowledge comes from."""

    setting: str
    because: str
    source: Source

    def to_json(self) -> dict[str, str]:
        return {"setting": self.setting, "because": self.because, "source": self.source}
