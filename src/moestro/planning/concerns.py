"""What is wrong with a plan, or would surprise its user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moestro.findings import Finding, Severity
from moestro.planning.expert_cache import expert_cache
from moestro.planning.placement import HOST, expert_blocks
from moestro.planning.planner import Planner, Trial
from moestro.planning.settings import INT_MAX, PlannedEngine
from moestro.units import format_bytes

MOST_STREAMS = 256
"""`LLAMA_MAX_SEQ`."""

MEMORY_SHORT = "memory-short"

_QUANTIZED = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"})


def concerns(planner: Planner, trial: Trial, nearest: Sequence[str] | None) -> tuple[Finding, ...]:
    """Findings about `trial`; `nearest` says what would fit where it does not, None that nobody
    looked."""
    return (
        *_memory(trial, nearest),
        *_context(planner, trial),
        *_contradictions(planner, trial),
        *_unknowns(planner, trial),
        *_engines(planner, trial),
    )


def _memory(trial: Trial, nearest: Sequence[str] | None) -> Iterator[Finding]:
    short = {device: over for device, over in trial.over_bytes.items() if over}
    if not short:
        return
    takes = trial.takes_bytes
    if trial.shared_bytes is not None and HOST in short:
        parts = [
            f"host and GPU share {format_bytes(trial.shared_bytes)}, "
            f"{format_bytes(trial.total_bytes)} are needed"
        ]
    else:
        parts = [
            f"{d.device} needs {format_bytes(takes[d.device])} of {format_bytes(d.capacity_bytes)}"
            for d in trial.ledger.devices
            if d.device in short
        ]
    if nearest is None:
        fix = "Plan the model for this machine: moestro plan MODEL."
    elif nearest:
        joined = "; or ".join(nearest)
        fix = f"{joined[0].upper()}{joined[1:]}."
    else:
        fix = "No quantization of this model fits here."
    yield Finding(
        Severity.FAIL, MEMORY_SHORT, "This does not fit into memory", ", ".join(parts), fix
    )


def _context(planner: Planner, trial: Trial) -> Iterator[Finding]:
    trained, context = planner.model.context_length, trial.settings.context
    if trained is not None and context > trained:
        yield Finding(
            Severity.WARN,
            "context-beyond-training",
            "The context is longer than the model was trained for",
            f"{context:,} tokens asked for, {trained:,} trained",
            f"The engine ends each stream at {trained:,} tokens; asking for that saves memory.",
        )
    workload = trial.workload
    if workload.prompt_tokens + workload.output_tokens > context:
        yield Finding(
            Severity.WARN,
            "workload-beyond-context",
            "Prompt and answer are longer than the context",
            f"{workload.prompt_tokens:,} + {workload.output_tokens:,} tokens, {context:,} fit",
            "Raise --context, or lower --prompt-tokens or --output-tokens.",
        )


def _contradictions(planner: Planner, trial: Trial) -> Iterator[Finding]:
    settings, wishes, model = trial.settings, planner.wishes, planner.model
    if settings.mtp_depth and not model.mtp_layers:
        yield Finding(
            Severity.FAIL,
            "mtp-absent",
            "MTP was asked for, and the file has no MTP layer",
            f"--mtp {settings.mtp_depth}",
            "Leave --mtp out, or take a file that was converted with its MTP layer.",
        )
    if settings.flash_attention == "off" and settings.cache_type_v in _QUANTIZED:
        yield Finding(
            Severity.FAIL,
            "quantized-values-need-flash-attention",
            "A quantized cache needs flash attention",
            f"--cache-type {settings.cache_type_v} with --flash-attention off",
            "Leave --flash-attention out, or take --cache-type f16.",
        )
    if settings.context * settings.parallel > INT_MAX:
        yield Finding(
            Severity.FAIL,
            "too-many-tokens",
            f"The engine counts at most {INT_MAX:,} tokens in its cache",
            f"{settings.context:,} for each of {settings.parallel} streams",
            "Lower --context or --parallel.",
        )
    if settings.parallel > MOST_STREAMS:
        yield Finding(
            Severity.FAIL,
            "too-many-streams",
            f"The engine takes at most {MOST_STREAMS} streams",
            f"--parallel {settings.parallel}",
            f"Ask for {MOST_STREAMS} or fewer; more requests wait for a free stream.",
        )
    given = [option for option, value in wishes.for_gpus.items() if value]
    if given and not planner.gpu_bytes:
        option = " and ".join(given)
        yield Finding(
            Severity.WARN,
            "no-gpu",
            f"There is no GPU for {option}",
            None,
            f"Leave {option} out; everything runs on the CPU.",
        )
    if wishes.expert_cache_bytes and planner.gpu_bytes:
        mtp = settings.mtp_depth > 0
        if not trial.placement.expert_blocks_on_host:
            yield Finding(
                Severity.WARN,
                "expert-cache-idle",
                "--expert-cache was given, and no experts of the GPU's layers are in host memory",
                None,
                "Give --cpu-expert-layers too, or leave it out.",
            )
        elif not expert_cache(model, settings, trial.placement, planner.gpu_bytes, with_mtp=mtp):
            yield Finding(
                Severity.FAIL,
                "expert-cache-too-small",
                "The expert cache has no room for the experts of one token",
                f"--expert-cache {format_bytes(wishes.expert_cache_bytes)}",
                "Make it larger, or leave it out.",
            )
    if wishes.cpu_expert_layers and not expert_blocks(model):
        yield Finding(
            Severity.WARN,
            "no-experts",
            "--cpu-expert-layers was given, and the model has no experts",
            None,
            "Use --gpu-layers: it keeps whole layers in host memory.",
        )


def _unknowns(planner: Planner, trial: Trial) -> Iterator[Finding]:
    if not trial.ledger.cache_known:
        asked = planner.model.format == "gguf"
        yield Finding(
            Severity.UNKNOWN,
            "cache-unknown",
            "How this architecture keeps its context is not known here",
            planner.model.architecture,
            "The memory figures leave the cache out"
            + ("." if asked else "; of a GGUF of this model the engine could tell it."),
        )
    told = {finding.code for finding in planner.machine.findings}
    for device in trial.ledger.devices:
        if device.capacity_bytes is None and "gpu-memory-unknown" not in told:
            yield Finding(
                Severity.UNKNOWN,
                "capacity-unknown",
                f"The memory of {device.device} is not known",
                None,
                "Describe the machine in a file and give it with --hardware.",
            )


def _engines(planner: Planner, trial: Trial) -> Iterator[Finding]:
    engine = planner.engine
    if engine.family != "llama.cpp" and trial.speed is not None:
        yield Finding(
            Severity.INFO,
            "speed-of-another-engine",
            f"The speed is forecast for llama.cpp, not for {engine.family}",
            f"{engine.id} may be faster or slower",
            "moestro tune measures it; moestro bench measures what runs.",
        )


def engine_changed(planned: PlannedEngine, here: PlannedEngine) -> Finding | None:
    """What to say of a plan whose engine is another one by now."""
    was, now = (
        version and version.partition("+")[0] for version in (planned.version, here.version)
    )
    if was in (None, now) and planned.family == here.family:
        return None
    return Finding(
        Severity.WARN,
        "plan-of-another-engine",
        "The plan was made with another version of its engine",
        f"{planned.id}: {planned.family} {planned.version or 'unknown'} planned, "
        f"{here.family} {here.version or 'unknown'} here",
        "Plan again: moestro plan MODEL --json. What was tuned has to be measured again.",
    )
