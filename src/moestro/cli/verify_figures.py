"""A verification's figures as words: one row each, with the limit it is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from moestro.findings import Finding, Severity
from moestro.routing.interval import Interval
from moestro.routing.paired import PairedRouting
from moestro.verify.divergence import Divergence
from moestro.verify.judge import worst_layer
from moestro.verify.policy import Limit, Policy
from moestro.verify.repetition import Repetition
from moestro.verify.verdict import Verdict, Verification
from moestro.words import shown

REJECT_GATE = (
    "KL divergence is a reject gate, not a ranking: of two files that pass, the one with the lower "
    "value need not answer better."
)
WHOLE_RANGE = "A limit is crossed only where the whole 95 % range is beyond it."
VERDICT_WORDS = {
    Verdict.PASS: "within all limits",
    Verdict.WARN: "look at the findings before you serve it",
    Verdict.FAIL: "do not serve it in the reference's place",
}
_NAME, _SENTENCE = 120, 1000
_WORST_FIRST = (Severity.FAIL, Severity.UNKNOWN, Severity.WARN)


@dataclass(frozen=True, slots=True)
class Row:
    """`interval`, `warn` and `fail` are empty where there is none. `judged` is None for a figure
    without limits, OK for one within them."""

    name: str
    value: str
    interval: str = ""
    warn: str = ""
    fail: str = ""
    judged: Severity | None = None


def names(found: Verification) -> tuple[str, str]:
    """Of the file and its reference, fit for a screen."""
    return shown(found.candidate.name, _NAME), shown(found.reference.name, _NAME)


def domains(found: Verification) -> list[str]:
    return [shown(domain, 30) for domain in found.domains]


def limits_of(found: Verification) -> str:
    """What the file of limits is called."""
    return shown(found.policy.name, _NAME)


def ranked(found: Verification) -> list[Finding]:
    """What counts against the file, the worst first, fit for a screen."""
    against = [finding for finding in found.findings if finding.severity in _WORST_FIRST]
    against.sort(key=lambda finding: _WORST_FIRST.index(finding.severity))
    return [_clean(finding) for finding in against]


def remarks(found: Verification) -> list[Finding]:
    """The other findings, fit for a screen."""
    return [_clean(finding) for finding in found.findings if finding.severity not in _WORST_FIRST]


def rows(found: Verification) -> list[Row]:
    """Every figure that is known."""
    made: list[Row] = []
    if found.divergence is not None:
        made += _of_divergence(found.divergence, found.policy)
    if found.routing is not None:
        made += _of_routing(found.routing, found.policy)
    if found.repetition is not None:
        made += _of_repetition(found.repetition, found.policy)
    return made


def reasons(found: Verification) -> list[str]:
    """The figures that carry a pass, each with its range and its limit."""
    told: list[str] = []
    divergence, routing = found.divergence, found.routing
    if divergence is not None:
        told += _reason(divergence.kld_mean, nats, "mean KL divergence {} nats", "kld_mean", found)
        told += _reason(
            divergence.top1_agreement,
            percent,
            "the same most likely token in {}",
            "top1_agreement",
            found,
        )
    if routing is not None:
        words = "{} of the gate weights go to the same experts"
        mass = routing.gate_mass_overlap
        told += _reason(mass, percent, words, "gate_mass_overlap", found)
    return told


def _reason(
    figure: Interval | None, form: Callable[[float], str], words: str, metric: str,
    found: Verification,
) -> Iterator[str]:  # fmt: skip
    if figure is None:
        return
    between = f" ({span(figure, form)})" if span(figure, form) else ""
    limit = found.policy.limits.get(metric)
    bounds = []
    if limit is not None:
        sides = {"warn": limit.warn, "fail": limit.fail}
        bounds = [
            f"{name} {limit.worse} {_short(form(bound))}"
            for name, bound in sides.items()
            if bound is not None
        ]
    against = f"; {', '.join(bounds)}" if bounds else ""
    yield words.format(form(figure.value)) + between + against


def nats(value: float) -> str:
    """A divergence, without the unit."""
    if 0 < abs(value) < 0.0001:
        return "<0.0001" if value > 0 else "0.0000"
    digits = 4 if abs(value) < 0.1 else 3 if abs(value) < 1 else 2
    return _large(value) or f"{value:.{digits}f}"


def percent(value: float) -> str:
    return f"{value:.1%}"


def times(value: float) -> str:
    return _large(value) or f"{value:.3f}"


def plain(value: float) -> str:
    return _large(value) or f"{value:.2f}"


def _large(value: float) -> str | None:
    """A broken model's figures have any size."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.3g}" if abs(value) >= 10_000 else None


def span(figure: Interval, form: Callable[[float], str]) -> str:
    """`0.010 to 0.014`; empty where nothing is known of how the figure scatters."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{form(figure.low)} to {form(figure.high)}"


def _of_divergence(found: Divergence, policy: Policy) -> Iterator[Row]:
    if found.kld_mean is not None:
        yield _measured("KL divergence, mean", found.kld_mean, nats, policy.limits.get("kld_mean"))
    if found.kld_median is not None:
        yield Row("KL divergence, median", nats(found.kld_median))
    if found.kld_p99 is not None:
        limit = policy.limits.get("kld_p99")
        yield _point("KL divergence, 99th percentile", found.kld_p99, nats, limit)
    if found.top1_agreement is not None:
        limit = policy.limits.get("top1_agreement")
        yield _measured("same most likely token", found.top1_agreement, percent, limit)
    if found.perplexity is not None and found.perplexity_reference is not None:
        theirs = plain(found.perplexity_reference)
        yield Row(f"perplexity (reference {theirs})", plain(found.perplexity))
    if found.perplexity_ratio is not None:
        limit = policy.limits.get("perplexity_ratio")
        yield _measured("perplexity ratio", found.perplexity_ratio, times, limit)


def _of_routing(found: PairedRouting, policy: Policy) -> Iterator[Row]:
    limits = policy.limits
    yield _measured("same experts", found.overlap, percent, None)
    if found.overlap_clear is not None:
        yield _measured("  without near ties", found.overlap_clear, percent, None)
    if found.gate_mass_overlap is not None:
        mass = found.gate_mass_overlap
        yield _measured("gate-mass overlap", mass, percent, limits.get("gate_mass_overlap"))
    worst = worst_layer(found, lambda layer: layer.gate_mass_overlap)
    if worst is not None:
        limit = limits.get("layer_gate_mass_overlap")
        yield _measured(f"  worst layer, {worst[0].layer}", worst[1], percent, limit)
    if found.router_kl is not None:
        yield _measured("router KL", found.router_kl, nats, limits.get("router_kl"))
    thinnest = worst_layer(found, lambda layer: layer.effective_experts_ratio)
    if thinnest is not None:
        layer, ratio = thinnest
        limit = limits.get("effective_experts_ratio")
        yield _measured(f"effective experts, layer {layer.layer}", ratio, times, limit)
    lost = max(len(layer.dead_only_in_candidate) for layer in found.layers)
    every = len(found.layers[0].load)
    share = _point("experts lost", lost / every, percent, limits.get("dead_experts"))
    yield replace(share, name=f"experts lost in a layer, of {every}", value=f"{lost:,}")


def _of_repetition(found: Repetition, policy: Policy) -> Iterator[Row]:
    theirs = percent(found.reference.repeated)
    yield Row(f"repetition (reference {theirs})", percent(found.candidate.repeated))
    limit = policy.limits.get("repetition_excess")
    yield _measured("repetition, excess", found.excess, percent, limit)


def _measured(
    name: str, figure: Interval, form: Callable[[float], str], limit: Limit | None
) -> Row:
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    row = Row(name, form(figure.value), span(figure, form))
    return _held_against(row, limit, (figure.value, low, high), form)


def _point(name: str, value: float, form: Callable[[float], str], limit: Limit | None) -> Row:
    return _held_against(Row(name, form(value)), limit, (value, value, value), form)


def _held_against(
    row: Row,
    limit: Limit | None,
    figure: tuple[float, float, float],
    form: Callable[[float], str],
) -> Row:
    """`figure` is a value and the ends of its interval."""
    if limit is None or (limit.warn is None and limit.fail is None):
        return row
    sign = ">" if limit.worse == "above" else "<"
    return replace(
        row,
        warn="" if limit.warn is None else f"{sign} {_short(form(limit.warn))}",
        fail="" if limit.fail is None else f"{sign} {_short(form(limit.fail))}",
        judged=limit.judge(*figure) or Severity.OK,
    )


def _short(number: str) -> str:
    """Limits are round numbers: `5%` and `0.5`, not `5.0%` and `0.500`."""
    digits, sign = (number[:-1], "%") if number.endswith("%") else (number, "")
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + sign


def _clean(finding: Finding) -> Finding:
    def lines(text: str | None) -> str | None:
        if text is None:
            return None
        return "\n".join(shown(line, _SENTENCE) for line in text.splitlines()[:50])

    return replace(
        finding,
        title=lines(finding.title) or "",
        evidence=lines(finding.evidence),
        fix=lines(finding.fix),
    )
