"""What a load came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moestro.load.energy import Energy
from moestro.load.record import RequestRecord


@dataclass(frozen=True, slots=True)
class LoadResult:
    """`records` in the order in which the requests ended. `seconds` from the start to the end of
    the last of them. `rate` None means a closed loop of `concurrency` users. `lost` says that the
    endpoint went away before the load was over; `interrupted` that the load was told to stop: what
    was under way then is not in the records."""

    scenario: str
    seed: int
    concurrency: int | None
    rate: float | None
    seconds: float
    records: tuple[RequestRecord, ...]
    energy: Energy | None = None
    lost: str | None = None
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "concurrency": self.concurrency,
            "rate": self.rate,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "lost": self.lost,
            "energy": self.energy.to_json() if self.energy else None,
            "requests": [record.to_json() for record in self.records],
        }
