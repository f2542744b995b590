"""From figures to findings: what a policy's limits say of what was measured. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moestro.findings import Finding, Severity
from moestro.routing.interval import Interval
from moestro.routing.paired import LayerPair, PairedRouting
from moestro.verify.divergence import Divergence
from moestro.verify.policy import Limit, Policy
from moestro.verify.repetition import Repetition

_WORST = {Severity.FAIL: 0, Severity.UNKNOWN: 1, Severity.WARN: 2}


@dataclass(frozen=True, slots=True)
class Figure:
    """What a limit is held against: `low` and `high` enclose the true value with 95 % confidence
    and are the value itself where no interval is known. `evidence` says it in words."""

    metric: str
    low: float
    high: float
    evidence: str


def judge(
    divergence: Divergence,
    routing: PairedRouting | None,
    repetition: Repetition | None,
    policy: Policy,
) -> tuple[Finding, ...]:
    """Findings of what is beyond a limit, the worst first; none where all is well."""
    figures = [*_of_divergence(divergence)]
    if routing is not None:
        figures += _of_routing(routing)
    if repetition is not None:
        figures += _of_repetition(repetition)
    found = [*_not_finite(divergence)]
    for figure in figures:
        limit = policy.limits.get(figure.metric)
        severity = limit.judge(figure.low, figure.high) if limit is not None else None
        if limit is not None and severity is not None:
            found.append(_finding(limit, severity, figure))
    return tuple(sorted(found, key=lambda finding: _WORST.get(finding.severity, 9)))


def _finding(limit: Limit, severity: Severity, figure: Figure) -> Finding:
    bound = limit.fail if severity is Severity.FAIL else limit.warn
    side = "at most" if limit.worse == "above" else "at least"
    asked = f"; {side} {bound:g} is asked for" if bound is not None else ""
    return Finding(severity, limit.code, limit.title, figure.evidence + asked, limit.fix)


def _figure(metric: str, found: Interval, evidence: str) -> Figure:
    """A single chunk says nothing of how figures scatter: then the value stands for itself."""
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return Figure(metric, low, high, evidence)


def _point(metric: str, value: float, evidence: str) -> Figure:
    return Figure(metric, value, value, evidence)


def _of_divergence(found: Divergence) -> Iterator[Figure]:
    if found.kld_mean is not None:
        text = f"mean KL divergence {found.kld_mean.value:.4f} nats{_range(found.kld_mean, '.4f')}"
        yield _figure("kld_mean", found.kld_mean, text)
    if found.kld_p99 is not None:
        text = f"one token in a hundred differs by {found.kld_p99:.2f} nats or more"
        yield _point("kld_p99", found.kld_p99, text)
    if found.top1_agreement is not None:
        same = found.top1_agreement
        text = f"{same.value:.1%} of the most likely tokens are the same{_range(same, '.1%')}"
        yield _figure("top1_agreement", same, text)
    if found.perplexity_ratio is not None and found.perplexity is not None:
        ratio = found.perplexity_ratio
        text = (
            f"perplexity {found.perplexity:.2f} where the reference has "
            f"{found.perplexity_reference:.2f}: {ratio.value:.3f} times{_range(ratio, '.3f')}"
        )
        yield _figure("perplexity_ratio", ratio, text)


def _not_finite(found: Divergence) -> Iterator[Finding]:
    if found.not_finite_candidate:
        yield Finding(
            Severity.FAIL,
            "output-not-finite",
            "The model computes NaN or infinity",
            f"at {found.not_finite_candidate:,} of {found.tokens + found.not_finite:,} positions",
            "A damaged file, or a type that overflows here: download it again, or take another "
            "quantization.",
        )
    if found.not_finite_reference:
        yield Finding(
            Severity.FAIL,
            "reference-not-finite",
            "The reference itself computes NaN or infinity",
            f"at {found.not_finite_reference:,} of {found.tokens + found.not_finite:,} positions",
            "Take another reference.",
        )


def _of_routing(found: PairedRouting) -> Iterator[Figure]:
    worst = found.worst_layer
    text = (
        f"the same experts in {found.overlap.value:.1%} of selections"
        f"{_range(found.overlap, '.1%')}; layer {worst.layer} in {worst.overlap.value:.1%}"
    )
    yield _figure("routing_overlap", found.overlap, text)
    yield _figure(
        "layer_overlap",
        worst.overlap,
        f"layer {worst.layer} takes the same experts in {worst.overlap.value:.1%} of selections"
        f"{_range(worst.overlap, '.1%')}",
    )
    if found.router_kl is not None:
        text = f"mean KL divergence of the routers {found.router_kl.value:.4f} nats"
        yield _figure("router_kl", found.router_kl, text)
    thinnest = _thinnest(found)
    if thinnest is not None:
        layer, ratio = thinnest
        text = (
            f"layer {layer.layer} uses {layer.effective_experts:.1f} experts effectively where the "
            f"reference uses {layer.effective_experts_reference:.1f}"
        )
        yield _figure("effective_experts_ratio", ratio, text)
    dead = [(layer.layer, layer.dead_only_in_candidate) for layer in found.layers]
    dead = [(layer, experts) for layer, experts in dead if experts]
    total = sum(len(experts) for _, experts in dead)
    some = "; ".join(f"layer {layer}: {_listed(experts)}" for layer, experts in dead[:3])
    yield _point("dead_experts", total, f"{total} never chosen though the reference does: {some}")


def _thinnest(found: PairedRouting) -> tuple[LayerPair, Interval] | None:
    ratios = [
        (layer, layer.effective_experts_ratio)
        for layer in found.layers
        if layer.effective_experts_ratio is not None
    ]
    return min(ratios, key=lambda pair: pair[1].value, default=None)


def _of_repetition(found: Repetition) -> Iterator[Figure]:
    text = (
        f"{found.candidate.repeated:.0%} of what it writes greedily repeats itself, of the "
        f"reference {found.reference.repeated:.0%}"
    )
    yield _figure("repetition_excess", found.excess, text)


def _listed(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(str(number) for number in numbers[:6])
    return f"{shown} and {len(numbers) - 6} more" if len(numbers) > 6 else shown


def _range(found: Interval, form: str) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" ({found.low:{form}} to {found.high:{form}})"
