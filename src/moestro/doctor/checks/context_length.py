"""Was the model trained for the context that is planned, and does its position scaling add up?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.model import ModelSpec

_STRETCHING = ("yarn", "linear")
_FAR = 2.2
"""Published files round a factor, or a length, to twice of what the other says at most."""


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    spec = case.model.spec
    found = [*_scaling(spec)]
    trained = spec.context_length
    if trained is not None and case.plan is not None:
        found += _planned(spec, trained, case.plan.settings.context)
    yield from found
    if trained is not None and not any(f.severity is Severity.WARN for f in found):
        planned = f"{case.plan.settings.context:,} planned, " if case.plan is not None else ""
        yield ok(
            "context-length",
            "The context is within what the model was trained for",
            f"{planned}{trained:,} trained",
        )


def _planned(spec: ModelSpec, trained: int, context: int) -> Iterator[Finding]:
    scaling = spec.rope_scaling
    if context > trained:
        yield Finding(
            Severity.WARN,
            "context-beyond-training",
            "The context is longer than the model was trained for",
            f"{context:,} tokens planned, {trained:,} trained"
            + (f", {scaling.kind} scaling included" if scaling is not None else ""),
            f"The engine ends each stream at {trained:,} tokens; plan with --context {trained} to "
            "save the memory.",
        )
    elif (
        scaling is not None
        and scaling.kind in _STRETCHING
        and scaling.original_context is not None
        and context <= scaling.original_context < trained
    ):
        yield Finding(
            Severity.INFO,
            "rope-scaling-unneeded",
            "Positions are stretched for longer texts than the plan holds",
            f"{scaling.kind} from {scaling.original_context:,} to {trained:,} tokens, "
            f"{context:,} planned",
            "Where the publisher has the model with and without scaling, the one without is better "
            "on short texts; a model that was trained with it needs it.",
        )


def _scaling(spec: ModelSpec) -> Iterator[Finding]:
    scaling, trained = spec.rope_scaling, spec.context_length
    if scaling is None or scaling.kind not in _STRETCHING or not trained:
        return
    if not scaling.factor or not scaling.original_context:
        return
    reached = scaling.factor * scaling.original_context
    if trained / _FAR <= reached <= trained * _FAR:
        return
    short = reached < trained
    yield Finding(
        # Beyond its reach the model was never trained; a longer reach than is used costs a little.
        Severity.WARN if short else Severity.INFO,
        "rope-scaling-odd",
        "The position scaling does not reach the context that the file declares"
        if short
        else "The position scaling reaches further than the context that the file declares",
        f"{scaling.kind}: {scaling.factor:g} × {scaling.original_context:,} = {reached:,.0f} "
        f"tokens, {trained:,} declared",
        "Compare rope_scaling and max_position_embeddings in the publisher's config.json.",
    )


CHECK = Check(
    "context-length", "model", "Was the model trained for the planned context?", run, quick=True
)
