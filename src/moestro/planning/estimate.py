"""A forecast figure: never without its range, never without where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moestro.planning.settings import Source


@dataclass(frozen=True, slots=True)
class Estimate:
    """`low` ≤ `expected` ≤ `high`. The range is meant to hold nine times out of ten."""

    expected: float
    low: float
    high: float
    source: Source

    def to_json(self) -> dict[str, Any]:
        return {
            "expected": self.expected,
            "low": self.low,
            "high": self.high,
            "source": self.source,
        }
