"""Bytes, counts, rates and durations: the one place that parses and prints them.

Sizes are integer bytes everywhere and are printed in binary units (1 GiB = 2**30 bytes). Decimal
suffixes (`GB`) are understood when read, with their decimal meaning; they are never printed.
Bandwidths alone are printed in GB/s (10**9 bytes per second), the unit of every data sheet.
"""

from __future__ import annotations

import re

from moestro.errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{f"{letter}ib": 1 << (10 * power) for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
}
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_BYTES = (1 << 63) - 1
"""What a signed integer of 64 bits holds, the engine's and the file system's own limit."""
_MOST_SECONDS = 100 * 365 * 86400.0
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", re.ASCII)


_SIZE_HINT = "Write it like 20GiB, 512MiB or 4096."
_DURATION_HINT = "Write it like 90s, 5m or 1h."
_BANDWIDTH_HINT = "Write it like 89.6 GB/s."


def parse_size(text: str) -> int:
    """Bytes meant by `20GiB`, `512 MiB`, `1.5GB` or `4096`.

    Raises:
        UsageError: not a number with a known unit, or more than any machine holds. A bare `G` is
            refused: it hides the 7 % between GB and GiB.
    """
    match = _QUANTITY.fullmatch(text)
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"“{_cut(text)}” is not a size.", hint=_SIZE_HINT)
    size = float(match[1]) * unit
    if size > _MOST_BYTES:
        raise UsageError(f"“{_cut(text)}” is more than any machine holds.", hint=_SIZE_HINT)
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds meant by `5m`, `90s`, `1.5h` or `30`.

    Raises:
        UsageError: not a number with a known unit, or more than a hundred years.
    """
    match = _QUANTITY.fullmatch(text)
    unit = _DURATION_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"“{_cut(text)}” is not a duration.", hint=_DURATION_HINT)
    seconds = float(match[1]) * unit
    if seconds > _MOST_SECONDS:
        raise UsageError(f"“{_cut(text)}” is more than a hundred years.", hint=_DURATION_HINT)
    return seconds


def parse_bandwidth(text: str) -> float:
    """Bytes per second meant by `89.6 GB/s`, `1.8TB/s` or `7 GiB/s`.

    Raises:
        UsageError: not a number with a known unit, less than a byte per second, or more than any
            machine moves.
    """
    amount, slash, per = text.strip().rpartition("/")
    match = _QUANTITY.fullmatch(amount)
    unit = _SIZE_UNITS.get(match[2].lower()) if match and match[2] else None
    if match is None or unit is None or not slash or per.strip().lower() not in ("s", "sec"):
        raise UsageError(f"“{_cut(text)}” is not a bandwidth.", hint=_BANDWIDTH_HINT)
    rate = float(match[1]) * unit
    if not 1 <= rate <= _MOST_BYTES:
        much = "less than a byte per second" if rate < 1 else "more than any machine moves"
        raise UsageError(f"“{_cut(text)}” is {much}.", hint=_BANDWIDTH_HINT)
    return rate


def _cut(text: str) -> str:
    """What was written, short enough to be repeated in a sentence."""
    return text if len(text) <= 40 else text[:39] + "…"


def format_bandwidth(bytes_per_second: float | None) -> str:
    """`89.6 GB/s`, `1008 GB/s`, `450 MB/s`; unknown is a question mark."""
    if bytes_per_second is None:
        return "?"
    unit, value = ("GB/s", bytes_per_second / 1e9)
    if value < 0.9995:
        unit, value = ("MB/s", bytes_per_second / 1e6)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def format_bytes(size_bytes: int | None) -> str:
    """`20.4 GiB`, `160 MiB`, `0 B`; unknown is a question mark, never zero."""
    if size_bytes is None:
        return "?"
    if abs(size_bytes) < KIB:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if abs(value) < 999.5 or unit == "TiB":
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def format_count(count: int | None) -> str:
    """A number of parameters in the field's decimal words: `34.66 B`, `135 M`."""
    if count is None:
        return "?"
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(count) >= size * 0.9995:
            value = count / size
            digits = 2 if value < 99.995 else 1 if value < 999.5 else 0
            return f"{value:.{digits}f} {unit}"
    return str(count)


def format_rate(per_second: float | None, noun: str = "tokens") -> str:
    """`143 tokens/s`, `8.4 tokens/s`."""
    if per_second is None:
        return f"? {noun}/s"
    digits = 1 if per_second < 100 else 0
    return f"{per_second:.{digits}f} {noun}/s"
