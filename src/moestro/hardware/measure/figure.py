"""One measured bandwidth with the conditions under which it was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from moestro.errors import HardwareError
from moestro.hardware.bandwidth import Bandwidth
from moestro.hardware.facts import check_positive
from moestro.units import format_bytes


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of `repetitions`, and the slowest and fastest of them.

    `size_bytes` is how much was gone through, by all threads together; `block_bytes` how much each
    request asked for (None where there are no requests). `how` says what was done.
    """

    what: str
    bytes_per_second: float
    low: float
    high: float
    repetitions: int
    threads: int
    size_bytes: int
    how: str
    measured_at: str
    block_bytes: int | None = None

    def __post_init__(self) -> None:
        check_positive(
            repetitions=self.repetitions, threads=self.threads, size_bytes=self.size_bytes
        )

    def bandwidth(self) -> Bandwidth:
        words = [f"{self.threads} thread{'' if self.threads == 1 else 's'}"]
        words.append(format_bytes(self.size_bytes))
        if self.block_bytes is not None:
            words.append(f"blocks of {format_bytes(self.block_bytes)}")
        words.append(self.measured_at[:10])
        return Bandwidth(
            self.bytes_per_second, "measured", self.low, self.high, detail=", ".join(words)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Figure:
        """What `to_json` wrote.

        Raises:
            HardwareError: it is something else, or its numbers cannot be true.
        """
        try:
            figure = cls(**value)
            figure.bandwidth()
            datetime.fromisoformat(figure.measured_at)
        except (TypeError, ValueError, AttributeError) as error:
            raise HardwareError("A stored measurement is damaged.") from error
        return figure


def figure_of(
    what: str,
    rates: Sequence[float],
    *,
    threads: int,
    size_bytes: int,
    how: str,
    block_bytes: int | None = None,
) -> Figure:
    """The figure that repeated measurements give; the date is now."""
    return Figure(
        what=what,
        bytes_per_second=statistics.median(rates),
        low=min(rates),
        high=max(rates),
        repetitions=len(rates),
        threads=threads,
        size_bytes=size_bytes,
        how=how,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        block_bytes=block_bytes,
    )
