"""From figures to findings: what a policy's limits say of what was measured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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
    value: float
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
    figures = [*_of_routing(routing)] if routing is not None else []
    figures += _of_divergence(divergence)
    if repetition is not None:
        figures += _of_repetition(repetition)
    found = [*_not_finite(divergence)]
    for figure in figures:
        limit = policy.limits.get(figure.metric)
        severity = limit.judge(figure.value, figure.low, figure.high) if limit is not None else None
        if limit is not None and severity is not None:
            found.append(_finding(limit, severity, figure))
    return tuple(sorted(_merged(found), key=lambda finding: _WORST.get(finding.severity, 9)))


def _merged(findings: list[Finding]) -> list[Finding]:
    """One finding a code: the worst speaks, what the others saw goes into its evidence."""
    merged: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda one: _WORST.get(one.severity, 9)):
        if (first := merged.get(finding.code)) is None:
            merged[finding.code] = finding
        else:
            evidence = f"{first.evidence}; also {finding.evidence}"
            merged[finding.code] = replace(first, evidence=evidence)
    return list(merged.values())


def _finding(limit: Limit, severity: Severity, figure: Figure) -> Finding:
    bound = limit.warn if severity is Severity.WARN else limit.fail
    asked = f", limit {bound:g}" if bound is not None else ""
    if severity is Severity.UNKNOWN:
        asked += "; too little text to be sure"
    return Finding(severity, limit.code, limit.title, figure.evidence + asked, limit.fix)


def _figure(metric: str, found: Interval, evidence: str) -> Figure:
    """A single chunk says nothing of how figures scatter: then the value stands for itself."""
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return Figure(metric, found.value, low, high, evidence)


def _point(metric: str, value: float, evidence: str) -> Figure:
    return Figure(metric, value, value, value, evidence)


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
            Severity.UNKNOWN,
            "reference-not-finite",
            "The reference itself computes NaN or infinity",
            f"at {found.not_finite_reference:,} of {found.tokens + found.not_finite:,} positions",
            "Take another reference.",
        )


def _of_routing(found: PairedRouting) -> Iterator[Figure]:
    if found.gate_mass_overlap is not None:
        mass = found.gate_mass_overlap
        text = f"{mass.value:.1%} of the gate weights go to the same experts{_range(mass, '.1%')}"
        yield _figure("gate_mass_overlap", mass, text)
    worst = worst_layer(found, lambda layer: layer.gate_mass_overlap)
    if worst is not None:
        layer, mass = worst
        text = f"{mass.value:.1%} of the gate weights in layer {layer.layer}{_range(mass, '.1%')}"
        yield _figure("layer_gate_mass_overlap", mass, text)
    if found.router_kl is not None:
        kl = found.router_kl
        text = f"mean KL divergence of the routers {kl.value:.4f} nats{_range(kl, '.4f')}"
        yield _figure("router_kl", kl, text)
    worst = worst_layer(found, lambda layer: layer.effective_experts_ratio)
    if worst is not None:
        layer, ratio = worst
        text = (
            f"layer {layer.layer} uses {layer.effective_experts:.1f} experts effectively, the "
            f"reference {layer.effective_experts_reference:.1f}"
        )
        yield _figure("effective_experts_ratio", ratio, text)
    yield _of_dead_experts(found)


def _of_dead_experts(found: PairedRouting) -> Figure:
    dead = [(layer.layer, layer.dead_only_in_candidate) for layer in found.layers]
    dead = [(layer, experts) for layer, experts in dead if experts]
    total = sum(len(experts) for _, experts in dead)
    most = max((len(experts) for _, experts in dead), default=0)
    every = len(found.layers[0].load)
    some = "; ".join(f"layer {layer}: {_listed(experts)}" for layer, experts in dead[:3])
    return _point("dead_experts", most / every, f"{total} experts; {some}")


def worst_layer(
    found: PairedRouting, figure: Callable[[LayerPair], Interval | None]
) -> tuple[LayerPair, Interval] | None:
    """The layer where a figure is least for certain, and the figure."""
    figures = [(layer, value) for layer in found.layers if (value := figure(layer)) is not None]

    def at_most(pair: tuple[LayerPair, Interval]) -> float:
        return pair[1].value if pair[1].high is None else pair[1].high

    return min(figures, key=at_most, default=None)


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
