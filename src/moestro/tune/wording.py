"""Comparisons in words, with their figures."""

from __future__ import annotations

from dataclasses import fields

from moestro.planning.settings import Settings
from moestro.tune.statistics import Ratio

NOTHING = 0.005
"""Ratios closer to 1 than this are called equal."""


def in_words(label: str, against: str, ratio: Ratio) -> str:
    """ "ubatch 256: 12 % faster than ubatch 512 (9–15 %), measured in 5 pairs"."""
    measured = f"measured in {ratio.pairs} pair{'' if ratio.pairs == 1 else 's'}"
    interval = ratio.interval
    if ratio.pairs == 0:
        return f"{label}: not compared"
    if abs(ratio.expected - 1) < NOTHING:
        reach = max(interval.high - 1, 1 - interval.low)
        return f"{label}: no different from {against} (within {_percent(reach)} %), {measured}"
    faster = ratio.expected > 1
    word = "faster" if faster else "slower"
    if interval.low >= 1 or interval.high <= 1:
        ends = sorted((abs(interval.low - 1), abs(interval.high - 1)))
        span = f"{_percent(ends[0])}–{_percent(ends[1])} %"
    else:
        span = f"{_signed(interval.low - 1)} to {_signed(interval.high - 1)} %"
    size = _percent(abs(ratio.expected - 1))
    return f"{label}: {size} % {word} than {against} ({span}), {measured}"


def settings_changed(before: Settings, after: Settings) -> tuple[str, ...]:
    """Names of the settings that differ."""
    return tuple(
        field.name
        for field in fields(Settings)
        if getattr(before, field.name) != getattr(after, field.name)
    )


def _percent(part: float) -> str:
    percent = part * 100
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"


def _signed(part: float) -> str:
    return ("−" if part < 0 else "+") + _percent(abs(part))
