"""The key-value part of a model file, with typed access and no trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moestro.errors import ModelCorrupt
from moestro.words import shown


@dataclass(frozen=True, slots=True)
class SkippedArray:
    """An array that was counted but not read: token lists, merges, scores."""

    count: int


@dataclass(frozen=True, slots=True)
class SkippedText:
    """A text too long to keep."""

    length_bytes: int


Scalar = int | float | bool | str
Value = Scalar | list[Scalar] | SkippedArray | SkippedText

MAX_LAYERS = 4096
"""The engine stops at 512 blocks; nothing real has more than a few hundred."""


class Hyperparameters:
    """A model's own keys, without their architecture prefix: `attention.head_count`, …

    Absent keys are None. A key of the wrong kind or an absurd number is `ModelCorrupt`.
    """

    def __init__(self, values: Mapping[str, Value], file_name: str) -> None:
        self._values = values
        self._file_name = file_name

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        return list(self._values)

    def integer(self, key: str, *, most: int = 1 << 40) -> int | None:
        """A whole number from 0 to `most`. Of a list, its largest member."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, list) and value:
            return max(self._whole(key, member, most) for member in value)
        return self._whole(key, value, most)

    def number(self, key: str) -> float | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a number")
        return float(value)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def flag(self, key: str) -> bool | None:
        value = self._values.get(key)
        return value if isinstance(value, bool) else None

    def per_layer(self, key: str, layers: int, *, most: int = 1 << 40) -> list[int] | None:
        """One whole number for each layer; a single number stands for all of them.

        A list may be longer than `layers`; a shorter one leaves the rest at its last value.
        """
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            return [self._whole(key, value, most)] * layers
        if not value:
            raise self._wrong(key, value, "a list with members")
        numbers = [self._whole(key, member, most) for member in value[:layers]]
        return numbers + numbers[-1:] * (layers - len(numbers))

    def flags(self, key: str, layers: int) -> list[bool] | None:
        """One flag for each layer, if the key holds a list; missing members are False."""
        value = self._values.get(key)
        if not isinstance(value, list):
            return None
        flags = [bool(member) for member in value[:layers]]
        return flags + [False] * (layers - len(flags))

    def _whole(self, key: str, value: object, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        if not 0 <= value <= most:
            raise self._wrong(key, value, f"between 0 and {most:,}")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> ModelCorrupt:
        said = shown(repr(value), 40)
        return ModelCorrupt(
            f"{self._file_name} says {shown(key)} = {said}, which is not {wanted}.",
            hint="The file was converted wrongly or is damaged; get another one.",
        )
