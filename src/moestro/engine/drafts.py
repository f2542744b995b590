"""How often drafts were accepted, place by place: llama.cpp says it in its log only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

LOG_LINES = 2000
"""Enough for the requests of one measurement."""

MOST_POSITIONS = 64

_PER_POSITION = re.compile(r"acc per pos = \(([0-9., ]{1,2000})\)")
_DRAFTED = re.compile(
    r"draft acceptance = [0-9.]+ \(\s*(\d{1,12}) accepted /\s*(\d{1,12}) generated\)"
)


def acceptance_by_position(log: Sequence[str], requests: int) -> tuple[float, ...]:
    """How often the drafts' first, second, … token was accepted in the last so many requests, by
    what a verbose engine logs after each: each weighs by its drafted tokens. Empty where the log
    says nothing that can be read."""
    said: list[tuple[int, list[float]]] = []
    drafted = 0
    for line in log:
        if match := _DRAFTED.search(line):
            drafted = int(match[2])
        elif (match := _PER_POSITION.search(line)) and drafted:
            with suppress(ValueError):
                said.append((drafted, [float(text) for text in match[1].split(",")]))
    sums: list[float] = []
    weights: list[float] = []
    for weight, rates in said[-requests:]:
        for place, rate in enumerate(rates[:MOST_POSITIONS]):
            if place == len(sums):
                sums.append(0.0)
                weights.append(0.0)
            sums[place] += rate * weight
            weights[place] += weight
    return tuple(part / weight for part, weight in zip(sums, weights, strict=True))
