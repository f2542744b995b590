"""What else would work, and what it would cost: the neighbours of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from moestro.model import ModelSpec
from moestro.model.what_if import bits_per_weight, retyped
from moestro.planning.placement import HOST
from moestro.planning.planner import Planner, Trial
from moestro.planning.settings import Settings
from moestro.planning.wishes import Wishes
from moestro.units import format_bytes

MORE_CONTEXT = 32768
SMALLER_TYPES = ("Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ2_XXS", "IQ1_S")


@dataclass(frozen=True, slots=True)
class Alternative:
    """`change` says in words what is different. Differences in speed are against the plan."""

    change: str
    trial: Trial

    def to_json(self) -> dict[str, Any]:
        speed = self.trial.speed_alone
        return {
            "change": self.change,
            "fits": self.trial.verdict,
            "settings": self.trial.settings.to_json(),
            "memory_bytes": dict(self.trial.takes_bytes),
            "decode_tokens_per_second": speed.decode.to_json() if speed else None,
            "prefill_tokens_per_second": (speed.prefill.to_json() if speed else None),
        }


def alternatives(planner: Planner, chosen: Trial) -> tuple[Alternative, ...]:
    """Neighbours worth a line: more context, more streams, a smaller cache type, MTP."""
    found = []
    for change, wishes, context, parallel in _neighbours(planner, chosen):
        other = planner.with_wishes(wishes)
        trial = other.best(context, parallel, ubatches=(chosen.settings.ubatch,))
        if trial.settings != chosen.settings:
            found.append(Alternative(change, trial))
    return tuple(found)


def _neighbours(planner: Planner, chosen: Trial) -> Iterator[tuple[str, Wishes, int, int]]:
    settings, wishes, trained = chosen.settings, planner.wishes, planner.model.context_length
    longer = settings.context + MORE_CONTEXT
    if trained is None or longer <= trained:
        yield f"+{MORE_CONTEXT:,} tokens of context", wishes, longer, settings.parallel
    elif settings.context < trained:
        yield f"context of {trained:,}, all it was trained for", wishes, trained, settings.parallel
    doubled = settings.parallel * 2
    yield f"{doubled} streams instead of {settings.parallel}", wishes, settings.context, doubled
    if settings.cache_type_k == "f16":
        smaller = replace(wishes, cache_type="q8_0")
        yield "cache in q8_0", smaller, settings.context, settings.parallel
    if planner.model.mtp_layers and not settings.mtp_depth:
        drafting = replace(wishes, mtp=1)
        yield "MTP, one token ahead", drafting, settings.context, settings.parallel


def nearest(planner: Planner, chosen: Trial) -> tuple[str, ...]:
    """What would make a plan fit that does not: sentences, the smallest change first."""
    return tuple(_nearest(planner, chosen))


def _nearest(planner: Planner, chosen: Trial) -> Iterator[str]:
    settings, wishes = chosen.settings, planner.wishes
    given = [option for option, value in wishes.for_gpus.items() if value is not None]
    if given:
        free = planner.with_wishes(
            replace(
                wishes,
                gpu_layers=None,
                cpu_expert_layers=None,
                expert_cache_bytes=None,
                cache_on_host=None,
            )
        )
        if free.best(settings.context, settings.parallel).fits:
            yield f"without {' and '.join(given)} it would fit"
    for context in _halves(settings.context):
        for parallel in dict.fromkeys((settings.parallel, 1)):
            if (context, parallel) == (settings.context, settings.parallel):
                continue
            if planner.best(context, parallel).fits:
                yield f"--context {context} --parallel {parallel} would fit"
                break
        else:
            continue
        break
    smaller = largest_that_fits(planner, settings)
    if smaller is not None:
        size = format_bytes(smaller.tensor_bytes)
        bits = bits_per_weight(smaller.tensor_bytes, smaller.parameters)
        yield f"a file in {smaller.quantization} ({size}, {bits:.1f} bits per weight) would fit"
    short = [
        f"{format_bytes(over)} more {'of free host memory' if device == HOST else f'on {device}'}"
        for device, over in chosen.over_bytes.items()
        if over
    ]
    yield f"{' and '.join(short)} would do"


def largest_that_fits(planner: Planner, settings: Settings) -> ModelSpec | None:
    """The same model in the best type that fits with these streams; None if even 1 bit does not."""
    model = planner.model
    if model.format != "gguf":
        return None
    for name in SMALLER_TYPES:
        smaller = retyped(model, name)
        if smaller.tensor_bytes >= model.tensor_bytes:
            continue
        if planner.with_model(smaller).best(settings.context, settings.parallel).fits:
            return smaller
    return None


def _halves(context: int) -> Iterator[int]:
    yield context
    while context > 2048:
        context = max(context // 2, 2048)
        yield context
