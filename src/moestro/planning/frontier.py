"""Size ↔ speed ↔ context: what a machine gives for each size of a model at each context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moestro.model import ModelSpec
from moestro.model.what_if import bits_per_weight, retyped
from moestro.planning.planner import Planner, Trial
from moestro.planning.settings import Settings

TYPES = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
FIRST_CONTEXT = 2048
DEFAULT_LAST_CONTEXT = 131_072


@dataclass(frozen=True)
class Point:
    """One size at one context. `actual` is the file itself; the other sizes are computed from its
    shape, each quantizable tensor in one type."""

    label: str
    actual: bool
    tensor_bytes: int
    bits_per_weight: float
    context: int
    trial: Trial


def frontier(planner: Planner, plan: Settings) -> Iterator[Point]:
    """The best trial for each size and context, with the plan's streams and ubatch; also where it
    does not fit."""
    contexts = _contexts(planner.model, plan.context)
    sizes = [(_own_label(planner.model), True, planner.model)]
    if planner.model.format == "gguf":
        sizes += [(name, False, retyped(planner.model, name)) for name in TYPES]
    for label, actual, model in sizes:
        sized = planner if actual else planner.with_model(model)
        bits = bits_per_weight(model.tensor_bytes, model.parameters)
        for context in contexts:
            trial = sized.best(context, plan.parallel, ubatches=(plan.ubatch,))
            yield Point(label, actual, model.tensor_bytes, bits, context, trial)


def _contexts(model: ModelSpec, plan_context: int) -> list[int]:
    last = max(model.context_length or DEFAULT_LAST_CONTEXT, plan_context)
    contexts = {plan_context, last}
    context = FIRST_CONTEXT
    while context < last:
        contexts.add(context)
        context *= 2
    return sorted(contexts)


def _own_label(model: ModelSpec) -> str:
    return f"this file ({model.quantization})" if model.quantization else "this file"
