"""What the user fixed. It stays fixed; everything else is chosen."""

from __future__ import annotations

from dataclasses import dataclass

from moestro.planning.settings import CacheType, FlashAttention, LoadMode, Ngram


@dataclass(frozen=True, slots=True)
class Wishes:
    """None leaves the choice to the planner. `engine` is its id, or the path of a program.
    `untuned`: what `tune` found on this machine is not to be used.

    `budget_bytes` bounds what the model may take of each kind of memory beyond what the machine
    allows: host memory on a host without GPUs, each GPU's own memory otherwise.
    """

    context: int | None = None
    parallel: int | None = None
    cache_type: CacheType | None = None
    unified: bool = False
    ubatch: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    batch: int | None = None
    repack: bool | None = None
    load_mode: LoadMode | None = None
    ngram: Ngram | None = None
    mtp_p_min: float | None = None
    engine: str | None = None
    gpu_layers: int | None = None
    cpu_expert_layers: int | None = None
    expert_cache_bytes: int | None = None
    cache_on_host: bool | None = None
    flash_attention: FlashAttention | None = None
    mtp: int | None = None
    prompt_cache_bytes: int | None = None
    context_checkpoints: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    budget_bytes: int | None = None
    untuned: bool = False

    @property
    def for_gpus(self) -> dict[str, int | bool | None]:
        """What only a GPU has a use for, by its option."""
        return {
            "--gpu-layers": self.gpu_layers,
            "--cpu-expert-layers": self.cpu_expert_layers,
            "--expert-cache": self.expert_cache_bytes,
            "--cache-on-host": self.cache_on_host,
        }
