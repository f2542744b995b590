"""Checks that facts about a machine could be true at all. Unknown (None) always may be."""

from __future__ import annotations

from typing import Final

from moestro.errors import HardwareError

MOST: Final = (1 << 63) - 1
"""No count, size or rate of a machine is above this; what is overflows sooner or later."""


def check_finite(name: str, value: float) -> None:
    """Raises HardwareError for a value that is no number or is absurdly large."""
    if not _number(value):
        raise HardwareError(f"{name} cannot be as large as that, or is no number at all.")


def check_positive(**values: float | None) -> None:
    """Raises HardwareError for the first value that is not a finite number above zero."""
    for name, value in values.items():
        if value is not None and not (_number(value) and value > 0):
            raise HardwareError(f"{_words(name)} must be a number above zero, not {_shown(value)}.")


def check_not_negative(**values: float | None) -> None:
    """Raises HardwareError for the first value that is not a finite number of zero or more."""
    for name, value in values.items():
        if value is not None and not (_number(value) and value >= 0):
            raise HardwareError(
                f"{_words(name)} must be a number of zero or more, not {_shown(value)}."
            )


def check_order(smaller: str, small: float | None, larger: str, large: float | None) -> None:
    """Raises HardwareError where a part is larger than the whole."""
    if small is not None and large is not None and small > large:
        raise HardwareError(f"{smaller} ({small:,}) cannot be above {larger} ({large:,}).")


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MOST  # nan and the infinities are not


def _shown(value: object) -> str:
    huge = isinstance(value, int) and abs(value) > MOST
    return f"more than {MOST:,}" if huge else repr(value)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
