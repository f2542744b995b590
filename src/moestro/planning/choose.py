"""Settings for a model on a machine: what the user fixed stays fixed, the rest gets a reason.

This first chooser knows memory and nothing of speed: where a choice would need a measurement it
says *assumed*.
"""

from __future__ import annotations

from dataclasses import dataclass

from moestro.findings import Finding, Severity
from moestro.hardware import Machine
from moestro.model import ModelSpec
from moestro.planning.settings import CacheType, Reason, Settings
from moestro.units import GIB, MIB, format_bytes

DEFAULT_CONTEXT = 8192
"""Tokens per stream when nothing is asked for: long enough for a conversation with tools, and
160 MiB of cache on a hybrid of 35 B parameters."""

DEFAULT_PARALLEL = 4
CACHE_SHARE = 0.25
"""Part of the memory left beside the weights that the cache may take by default."""

PROMPT_CACHE_SHARE = 0.05
PROMPT_CACHE_MAX_BYTES = 1 * GIB
"""The engine's own default for its prompt cache is 8 GiB, which people meet as a leak."""

CHECKPOINTS_MAX = 8
CHECKPOINTS_MAX_BYTES = 512 * MIB
"""Context checkpoints of all slots together. The engine's default, 32 per slot, has no byte bound."""

UBATCH = 512


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user fixed; None leaves the choice to us."""

    context: int | None = None
    parallel: int | None = None
    cache_type: CacheType | None = None
    unified: bool = False
    ubatch: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    mtp: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings, the reason for each, and what is wrong with them."""

    settings: Settings
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...]
    weights_bytes: int
    cache_bytes: int


def choose(model: ModelSpec, machine: Machine, wishes: Wishes) -> Choice:
    """Chooses settings for `model` on `machine`.

    Never raises for what does not fit: the findings say so, with severity fail.
    """
    reasons: list[Reason] = []
    memory_bytes = machine.memory_available_bytes
    cache_type = wishes.cache_type or "f16"
    weights_bytes = model.tensor_bytes
    left_bytes = max(memory_bytes - weights_bytes, 0)

    def cache_bytes(context: int, parallel: int) -> int:
        return model.cache_bytes(context, parallel, cache_type, cache_type)

    context, why_context = _context(model, wishes, left_bytes, cache_bytes)
    parallel, why_parallel = _parallel(context, wishes, left_bytes, cache_bytes)
    reasons += [why_context, why_parallel, _why_cache_type(wishes)]
    threads, why_threads = _threads(machine, wishes)
    reasons.append(why_threads)
    mtp_depth, why_mtp = _mtp(model, wishes)
    reasons.append(why_mtp)
    prompt_cache_bytes, checkpoints, why_bounds = _bounded_caches(model, parallel, left_bytes)
    reasons += why_bounds
    settings = Settings(
        context=context,
        parallel=parallel,
        threads=threads,
        ubatch=wishes.ubatch or UBATCH,
        cache_type_k=cache_type,
        cache_type_v=cache_type,
        unified=wishes.unified,
        gpu_layers=wishes.gpu_layers,
        mtp_depth=mtp_depth,
        prompt_cache_bytes=prompt_cache_bytes,
        context_checkpoints=checkpoints,
    )
    total_cache_bytes = cache_bytes(context, parallel)
    findings = _findings(model, machine, settings, weights_bytes, total_cache_bytes)
    return Choice(settings, tuple(reasons), findings, weights_bytes, total_cache_bytes)
