"""Does the machine keep its speed under load?

Cooling shows only after a while. The first and the last third of a soak are compared by their
medians; a drop counts only if nearly every stretch of the last third was slower than nearly every
one of the first, and if nobody else had the processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.soak import SoakReport, SoakSample
from moestro.findings import Finding, Severity
from moestro.units import format_bytes, format_rate

LEAST_SAMPLES = 6
DROP = 0.10
STOLEN = 0.05
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
            f"{len(soak.samples)} answers' worth of load in {soak.seconds:.0f} s",
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
    stolen = max((s.stolen or 0.0 for s in soak.samples), default=0.0)
    if after > before * (1 - DROP) or not _separate(first, last):
        return ok("soak", "The speed holds under load", evidence)
    if stolen > STOLEN:
        return unknown(
            "soak-disturbed",
            "The speed fell, and other work took the processor meanwhile",
            f"{evidence}; up to {stolen:.0%} of the processor's time was taken away",
            "Repeat it when nothing else runs on this host.",
        )
    return Finding(
        Severity.WARN,
        "slows-under-load",
        f"The machine loses {1 - after / before:.0%} of its speed under load",
        evidence,
        "Look at cooling, fan curves and power limits; plan with the lower speed.",
    )


def _separate(first: Sequence[SoakSample], last: Sequence[SoakSample]) -> bool:
    """Nine of ten pairs have the later stretch slower."""
    pairs = [a.tokens_per_second > b.tokens_per_second for a in first for b in last]
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
