"""What became of one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """Times in seconds since the load began. `piece_times` are those of the answer's pieces, the
    first token's first. Token counts are the endpoint's own (`usage`), None where it does not
    count. `drafted` and `accepted` are its draft tokens. `error` is None for a whole answer."""

    session: int
    turn: int
    due: float
    sent: float
    piece_times: tuple[float, ...]
    ended: float
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    drafted: int | None = None
    accepted: int | None = None
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ttft(self) -> float | None:
        """Time to first token: from the moment at which it was sent."""
        return self.piece_times[0] - self.sent if self.piece_times else None

    @property
    def latency(self) -> float:
        """End to end."""
        return self.ended - self.sent

    def to_json(self) -> dict[str, Any]:
        return {
            "session": self.session,
            "turn": self.turn,
            "due_seconds": self.due,
            "sent_seconds": self.sent,
            "ttft_seconds": self.ttft,
            "latency_seconds": self.latency,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "finish_reason": self.finish_reason,
            "error": self.error,
        }
