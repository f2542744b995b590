"""Checks that facts about a machine could be true at all. Unknown (None) always may be."""

from __future__ import annotations

import math

from moestro.errors import HardwareError


def check_positive(**values: float | None) -> None:
    """Raises HardwareError for the first value that is not a finite number above zero."""
    for name, value in values.items():
        if value is not None and not (_number(value) and value > 0):
            raise HardwareError(f"{_words(name)} must be a number above zero, not {value!r}.")


def check_not_negative(**values: float | None) -> None:
    """Raises HardwareError for the first value that is not a finite number of zero or more."""
    for name, value in values.items():
        if value is not None and not (_number(value) and value >= 0):
            raise HardwareError(f"{_words(name)} must be a number of zero or more, not {value!r}.")


def check_order(smaller: str, small: float | None, larger: str, large: float | None) -> None:
    """Raises HardwareError where a part is larger than the whole."""
    if small is not None and large is not None and small > large:
        raise HardwareError(f"{smaller} ({small:,}) cannot be above {larger} ({large:,}).")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
