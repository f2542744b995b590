"""What became of one request."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """Times in seconds since the load began. `due` is when it should have been sent, `sent` when it
    was. `piece_times` are those of the answer's pieces, the first token's first; pieces that
    arrived together have one time. Token counts are the endpoint's own (`usage`), None where it
    does not count. `drafted` and `accepted` are its draft tokens. `error` is None for a whole
    answer, else a sentence, and `error_code` its stable name. `text` is the answer, tool calls
    left out, where the load asked to keep it."""

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
    error_code: str | None = None
    text: str | None = None

    @property
    def ttft(self) -> float | None:
        """Time to first token: from the moment at which it was sent."""
        return self.piece_times[0] - self.sent if self.piece_times else None

    @property
    def ttft_from_due(self) -> float | None:
        """The same from the moment at which it should have been sent, so that a request that had
        to wait in the client does not look fast."""
        return self.piece_times[0] - self.due if self.piece_times else None

    @property
    def latency(self) -> float:
        """End to end."""
        return self.ended - self.sent

    @property
    def latency_from_due(self) -> float:
        return self.ended - self.due

    @property
    def tokens(self) -> int:
        """Of the answer; where the endpoint does not count, its pieces."""
        return len(self.piece_times) if self.output_tokens is None else self.output_tokens

    @property
    def gaps(self) -> tuple[float, ...]:
        """Inter-token latencies: between each piece and the one before."""
        return tuple(later - earlier for earlier, later in pairwise(self.piece_times))

    @property
    def time_per_token(self) -> float | None:
        """From the first to the last piece, per token after the first; None without a second."""
        if self.tokens < 2 or len(self.piece_times) < 2:
            return None
        return (self.piece_times[-1] - self.piece_times[0]) / (self.tokens - 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "session": self.session,
            "turn": self.turn,
            "due_seconds": self.due,
            "sent_seconds": self.sent,
            "ttft_seconds": self.ttft,
            "latency_seconds": self.latency,
            "time_per_token_seconds": self.time_per_token,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "finish_reason": self.finish_reason,
            "error": self.error,
            "error_code": self.error_code,
        }
