"""Does the machine keep its speed under load?

Cooling shows only after a while. The first and the last third of a soak are compared by their
medians; a change counts only if nearly every stretch of one third was slower than nearly every one
of the other, and says nothing about the machine where others had the processor meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.soak import SoakReport, SoakSample
from moestro.findings import Finding, Severity
from moestro.units import format_bytes, format_rate

LEAST_SAMPLES = 6
CHANGE = 0.10
TAKEN = 0.05
"""Of all processors' time, in one third: the engine's threads wait for the one that is held up."""

GROWTH_BYTES = 256 << 20
"""Beyond what the plan allows its caches: allocators keep some of what was freed."""


def run(case: Case) -> Iterator[Finding]:
    soak = case.soak
    if soak is None:
        return
    if soak.trouble is not None:
        yield Finding(
            Severity.FAIL,
            "soak-failed",
            "The engine did not survive the load",
            f"after {soak.seconds:.0f} s: {soak.trouble}",
            "See the engine's log with moestro up, and plan with a smaller context.",
        )
        return
    if len(soak.samples) < LEAST_SAMPLES:
        yield unknown(
            "soak-too-short",
            "The soak was too short to see a drop",
            f"{len(soak.samples)} stretch{'es' if len(soak.samples) != 1 else ''} of load in "
            f"{soak.seconds:.0f} s; {LEAST_SAMPLES} are needed",
            "Let it run longer: --soak 2m.",
        )
        return
    third = len(soak.samples) // 3
    first, last = soak.samples[:third], soak.samples[-third:]
    yield _speed(soak, first, last)
    yield from _memory(case, soak, first, last)


def _speed(soak: SoakReport, first: Sequence[SoakSample], last: Sequence[SoakSample]) -> Finding:
    before, after = (median(s.tokens_per_second for s in part) for part in (first, last))
    evidence = (
        f"{format_rate(before)} in the first third of {soak.seconds:.0f} s, "
        f"{format_rate(after)} in the last{_temperatures(soak)}"
    )
    if not any(s.tokens_per_second for s in last):
        return Finding(
            Severity.FAIL,
            "silent-under-load",
            "The engine stopped writing under load",
            f"{evidence}: no token at all",
            "Try one prompt with moestro run MODEL, look at the engine's log with moestro up "
            "MODEL, and plan with a shorter --context or fewer --parallel streams.",
        )
    fell = after <= before * (1 - CHANGE)
    rose = before <= after * (1 - CHANGE)
    taken = max(_taken(part) for part in (first, last))
    if (fell or rose) and taken > TAKEN:
        return unknown(
            "soak-disturbed",
            f"The speed {'fell' if fell else 'rose'}, and other work had the processor meanwhile",
            f"{evidence}; others had {taken:.0%} of the processors' time",
            "Repeat it when nothing else runs on this host.",
        )
    if rose and _separate(last, first):
        return Finding(
            Severity.INFO,
            "soak-began-slow",
            "The speed rose during the soak: it began slower than it ended",
            evidence,
            "Repeat it, now that the model is in memory, to see whether the higher speed holds.",
        )
    if not fell or not _separate(first, last):
        return ok("soak", "The speed holds under load", evidence)
    return Finding(
        Severity.WARN,
        "slows-under-load",
        f"The machine loses {1 - after / before:.0%} of its speed under load",
        evidence,
        "Look at cooling, fan curves and power limits; plan with the lower speed.",
    )


def _taken(part: Sequence[SoakSample]) -> float:
    """Of all processors' time, what neither the engine nor the soak had."""
    return fmean((s.stolen or 0.0) + (s.others or 0.0) for s in part)


def _separate(fast: Sequence[SoakSample], slow: Sequence[SoakSample]) -> bool:
    """Nine of ten pairs have the stretch that should be slow slower."""
    pairs = [a.tokens_per_second > b.tokens_per_second for a in fast for b in slow]
    return sum(pairs) >= 0.9 * len(pairs)


def _temperatures(soak: SoakReport) -> str:
    words = ""
    for name, values in (
        ("processor", [s.temperature_c for s in soak.samples if s.temperature_c is not None]),
        ("GPU", [s.gpu_temperature_c for s in soak.samples if s.gpu_temperature_c is not None]),
    ):
        if values:
            words += f"; {name} {values[0]:.0f} to {max(values):.0f} °C"
    held_back = {reason for s in soak.samples for reason in s.gpu_reasons}
    return words + (f"; GPU held back: {', '.join(sorted(held_back))}" if held_back else "")


def _memory(
    case: Case, soak: SoakReport, first: Sequence[SoakSample], last: Sequence[SoakSample]
) -> Iterator[Finding]:
    before = [s.rss_bytes for s in first if s.rss_bytes is not None]
    after = [s.rss_bytes for s in last if s.rss_bytes is not None]
    if not before or not after:
        return
    growth_bytes = int(median(after) - median(before))
    allowed_bytes = GROWTH_BYTES
    if case.plan is not None:
        bounds = [line for d in case.plan.ledger.devices for line in d.lines if not line.resident]
        allowed_bytes += sum(line.size_bytes for line in bounds)
    if growth_bytes > allowed_bytes:
        yield Finding(
            Severity.WARN,
            "memory-grows",
            "The engine's memory grows beyond its planned caches",
            f"{format_bytes(growth_bytes)} more in the last third than in the first; planned "
            f"bounds {format_bytes(allowed_bytes)}",
            "Watch it over hours, and restart the service before memory runs out.",
        )


CHECK = Check("soak", "machine", "Does the machine keep its speed under load?", run)
