"""Load over a while: does the machine keep its speed?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoakSample:
    """A stretch of the soak, `at_seconds` from its start. Temperatures in °C, None where no sensor
    tells; `rss_bytes` is the engine's memory that is its own (RssAnon and swap).
    Of all processors' time, `stolen` is the part that the machine's own host gave to others, and
    `others` the part that went to processes which are neither the engine nor the soak."""

    at_seconds: float
    tokens_per_second: float
    temperature_c: float | None = None
    gpu_temperature_c: float | None = None
    gpu_reasons: tuple[str, ...] = ()
    rss_bytes: int | None = None
    stolen: float | None = None
    others: float | None = None


@dataclass(frozen=True, slots=True)
class SoakReport:
    """`seconds` of load with `parallel` streams. `trouble` is why it ended early, if it did."""

    seconds: float
    parallel: int
    samples: tuple[SoakSample, ...]
    trouble: str | None = None
