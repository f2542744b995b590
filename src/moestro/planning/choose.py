"""Settings for a model on a machine: what the user fixed stays fixed, the rest gets a reason.

This first chooser knows memory and nothing of speed: where a choice would need a measurement it
says *assumed*.
"""

from __future__ import annotations

from dataclasses import dataclass

from moestro.findings import Finding, Severity
from moestro.hardware import Machine
from moestro.model import ModelSpec
from moestro.planning.settings import CacheType, Reason, Settings, Source
from moestro.units import GIB, MIB, format_bytes

DEFAULT_CONTEXT = 8192
"""Tokens per stream when nothing is asked for: long enough for a conversation with tools, and
160 MiB of cache on a hybrid of 35 B parameters."""

CONTEXT_FLOOR = 1024
DEFAULT_PARALLEL = 4
CACHE_SHARE = 0.25
"""Part of the memory left beside the weights that the cache may take by default."""

PROMPT_CACHE_SHARE = 0.05
PROMPT_CACHE_MAX_BYTES = 1 * GIB
"""The engine's own default for its prompt cache is 8 GiB, which people meet as a leak."""

CHECKPOINTS_MAX = 8
CHECKPOINTS_MAX_BYTES = 512 * MIB
"""Context checkpoints of all slots. The engine's default, 32 per slot, has no byte bound."""

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
    """Settings, the reason for each (both cache types share one), and what is wrong with them.

    `cache_bytes` is None where the architecture's cache is not known.
    """

    settings: Settings
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...]
    weights_bytes: int
    cache_bytes: int | None


def choose(model: ModelSpec, machine: Machine, wishes: Wishes) -> Choice:
    """Chooses settings for `model` on `machine`.

    Never raises for what does not fit or can't work: the findings say so, with severity fail.
    """
    return _Chooser(model, machine, wishes).choice()


class _Chooser:
    def __init__(self, model: ModelSpec, machine: Machine, wishes: Wishes) -> None:
        self.model = model
        self.machine = machine
        self.wishes = wishes
        self.weights_bytes = model.tensor_bytes
        self.memory_bytes = machine.usable_memory_bytes
        self.left_bytes = max(self.memory_bytes - self.weights_bytes, 0)
        self.reasons: list[Reason] = []

    def choice(self) -> Choice:
        context = self.context()
        parallel = self.parallel(context)
        self.say_cache_type()
        settings = Settings(
            context=context,
            parallel=parallel,
            threads=self.threads(),
            ubatch=self.ubatch(),
            cache_type_k=self.cache_type,
            cache_type_v=self.cache_type,
            unified=self.unified(),
            gpu_layers=self.gpu_layers(),
            mtp_depth=self.mtp_depth(),
            prompt_cache_bytes=self.prompt_cache_bytes(),
            context_checkpoints=self.context_checkpoints(parallel),
        )
        return Choice(
            settings=settings,
            reasons=tuple(self.reasons),
            findings=tuple(self.findings(settings)),
            weights_bytes=self.weights_bytes,
            cache_bytes=self.cache_bytes(context, parallel),
        )

    @property
    def cache_type(self) -> CacheType:
        return self.wishes.cache_type or "f16"

    def because(self, setting: str, why: str, source: Source) -> None:
        self.reasons.append(Reason(setting, why, source))

    def cache_bytes(self, context: int, parallel: int) -> int | None:
        return self.model.cache_bytes(
            context,
            parallel,
            self.cache_type,
            self.cache_type,
            ubatch=self.wishes.ubatch or UBATCH,
            unified=self.wishes.unified,
        )

    def takes_too_much(self, context: int, parallel: int) -> bool:
        return (self.cache_bytes(context, parallel) or 0) > self.left_bytes * CACHE_SHARE

    def context(self) -> int:
        if self.wishes.context is not None:
            self.because("context", "you asked for it", "user")
            return self.wishes.context
        trained = self.model.context_length
        context = min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        if context > CONTEXT_FLOOR and self.takes_too_much(context, 1):
            while context > CONTEXT_FLOOR and self.takes_too_much(context, 1):
                context //= 2
            share = f"{CACHE_SHARE:.0%} of the memory beside the weights"
            self.because("context", f"more would take over {share}", "computed")
        elif context == trained:
            self.because("context", "as long as the model was trained for", "file")
        else:
            reach = f", of {trained:,} it was trained for" if trained else ""
            self.because("context", f"enough for a talk with tools{reach}", "assumed")
        return context

    def parallel(self, context: int) -> int:
        if self.wishes.parallel is not None:
            self.because("parallel", "you asked for it", "user")
            return self.wishes.parallel
        parallel = DEFAULT_PARALLEL
        while parallel > 1 and self.takes_too_much(context, parallel):
            parallel //= 2
        size_bytes = self.cache_bytes(context, parallel)
        if parallel < DEFAULT_PARALLEL:
            share = f"{CACHE_SHARE:.0%} of the memory beside the weights"
            self.because("parallel", f"more would take over {share}", "computed")
        elif size_bytes is None:
            self.because("parallel", "the cost of this architecture's cache is unknown", "assumed")
        else:
            self.because("parallel", f"their cache takes {format_bytes(size_bytes)}", "computed")
        return parallel

    def say_cache_type(self) -> None:
        """One reason for both halves of the cache, which are chosen together."""
        if self.wishes.cache_type is not None:
            self.because("cache_type_k", "you asked for it", "user")
        else:
            self.because("cache_type_k", "the engine's own precision", "assumed")

    def threads(self) -> int:
        if self.wishes.threads is not None:
            self.because("threads", "you asked for it", "user")
            return self.wishes.threads
        self.because("threads", "one for each core that may be used", "computed")
        return self.machine.usable_cores

    def ubatch(self) -> int:
        if self.wishes.ubatch is not None:
            self.because("ubatch", "you asked for it", "user")
            return self.wishes.ubatch
        self.because("ubatch", "the engine's own default", "assumed")
        return UBATCH

    def unified(self) -> bool:
        if self.wishes.unified:
            self.because("unified", "you asked for it", "user")
        else:
            self.because("unified", "every stream keeps its own part", "assumed")
        return self.wishes.unified

    def gpu_layers(self) -> int | None:
        if self.wishes.gpu_layers is not None:
            self.because("gpu_layers", "you asked for it", "user")
        elif self.machine.gpus:
            self.because("gpu_layers", "the engine's own fitter decides", "assumed")
        else:
            self.because("gpu_layers", "no GPU was found", "computed")
        return self.wishes.gpu_layers

    def mtp_depth(self) -> int:
        if self.wishes.mtp is not None:
            self.because("mtp_depth", "you asked for it", "user")
            return self.wishes.mtp
        if not self.model.mtp_layers:
            self.because("mtp_depth", "the file has no MTP layer", "file")
        else:
            self.because("mtp_depth", "drafting can lose, mostly so on CPUs", "assumed")
        return 0

    def prompt_cache_bytes(self) -> int:
        size_bytes = min(int(self.left_bytes * PROMPT_CACHE_SHARE), PROMPT_CACHE_MAX_BYTES)
        size_bytes -= size_bytes % MIB
        self.because("prompt_cache_bytes", "a bound; the engine's own is 8 GiB", "computed")
        return size_bytes

    def context_checkpoints(self, parallel: int) -> int:
        """Snapshots per slot. One copies a sequence's recurrent state, so their bytes are known."""
        state_bytes = self.model.recurrent_bytes_per_sequence
        if state_bytes is None:
            self.because("context_checkpoints", "this architecture's state is unknown", "assumed")
            return 0
        if state_bytes == 0:
            self.because("context_checkpoints", "no recurrent state to keep", "file")
            return 0
        room_bytes = min(CHECKPOINTS_MAX_BYTES, int(self.left_bytes * PROMPT_CACHE_SHARE))
        count = min(CHECKPOINTS_MAX, room_bytes // (state_bytes * parallel))
        bound = format_bytes(count * parallel * state_bytes)
        self.because("context_checkpoints", f"they take {bound} at most", "computed")
        return count

    def findings(self, settings: Settings) -> list[Finding]:
        found = [
            self.memory_finding(settings),
            self.context_finding(settings),
            self.mtp_finding(settings),
        ]
        return [finding for finding in found if finding is not None]

    def memory_finding(self, settings: Settings) -> Finding | None:
        cache_bytes = self.cache_bytes(settings.context, settings.parallel) or 0
        needed_bytes = self.weights_bytes + cache_bytes
        if needed_bytes <= self.memory_bytes:
            return None
        evidence = (
            f"weights {format_bytes(self.weights_bytes)} + cache {format_bytes(cache_bytes)} "
            f"against {format_bytes(self.memory_bytes)} free"
        )
        if self.weights_bytes > self.memory_bytes:
            fix = "Take a smaller quantization of this model, or a smaller model."
        else:
            fix = "Ask for less --context or --parallel, or for --cache-type q8_0."
        return Finding(
            Severity.FAIL, "memory-short", "This does not fit into memory", evidence, fix
        )

    def context_finding(self, settings: Settings) -> Finding | None:
        trained = self.model.context_length
        if trained is None or settings.context <= trained:
            return None
        return Finding(
            Severity.WARN,
            "context-beyond-training",
            "The context is longer than the model was trained for",
            f"{settings.context:,} tokens asked for, {trained:,} trained",
            f"The engine ends each stream at {trained:,} tokens; asking for that saves memory.",
        )

    def mtp_finding(self, settings: Settings) -> Finding | None:
        if not settings.mtp_depth or self.model.mtp_layers:
            return None
        return Finding(
            Severity.FAIL,
            "mtp-absent",
            "MTP was asked for, and the file has no MTP layer",
            f"--mtp {settings.mtp_depth}",
            "Leave --mtp out, or take a file that was converted with its MTP layer.",
        )
