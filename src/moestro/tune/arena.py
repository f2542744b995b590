"""Where settings are tried. The search knows engines, clocks and models by this only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from moestro.planning.settings import Settings

Outcome = Literal["refused", "crashed", "out-of-memory", "over-plan", "timed-out", "wrong-output"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one try showed. `value` is the workload's objective, the larger the better, and positive
    (1 / seconds of the same work, or requests per second within the SLO). `spent_seconds` is what
    it cost, and `starting_seconds` what of that went into starting an engine. `share` is what
    really ran of a part, where it could not be cut as asked. `disturbance` is the part of the
    processors' time that others took meanwhile: such a sample is not believed if another can be
    had. `figures` are for the table: "ttft_seconds", "decode_tokens_per_second",
    "prompt_tokens_per_second", "acceptance", "memory_bytes", …"""

    value: float
    spent_seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)
    share: float | None = None
    disturbance: float = 0.0
    starting_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """These settings do not run, or not as they must; they are not tried again."""

    outcome: Outcome
    sentence: str
    spent_seconds: float = 0.0


class Arena(Protocol):
    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        """Runs part number `part` of the workload, which is the same requests for all settings;
        `share` of its full length, in (0, 1]. Starts an engine if none runs with these settings."""

    async def release(self, settings: Settings) -> None:
        """These settings are out of the race: their engine may end."""

    def start_seconds(self, settings: Settings) -> float:
        """What starting an engine with them costs, as far as is known; 0 where one runs."""
