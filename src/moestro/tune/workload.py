"""What settings are tuned for: the requests, how many at once, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from moestro.load.record import RequestRecord
from moestro.load.result import LoadResult
from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.summary import Slo

SESSIONS_A_USER = 4
"""In a whole part, unless they are long; so a quarter of a part still keeps every user busy."""

MOST_SESSIONS = 40
"""A tiny model's part then still lasts long beside the 0.2 s between two engines."""

LEAST_LENGTH = 0.25
"""A quarter of a conversation is still one; less would measure how requests begin."""

PART_SHARE = 0.03
"""Of the budget, for one whole part: some dozens of comparisons."""

STEEP = 4
"""Power by which a missed limit weighs: 10 % over costs a third of the value."""


@dataclass(frozen=True, slots=True)
class Work:
    """`streams` users at once, each of whom goes through sessions of `scenario`, one after the
    other. `slo` holds limits that the settings are to keep.

    The objective is requests of the scenario's own lengths per second:

        streams / (mean TTFT + TPOT · (mean answer length − 1))

    TTFT is the mean over requests, TPOT all time between tokens divided by all tokens after the
    first ones. An answer that ends before its length, as answers do, so weighs like a whole one:
    settings whose answers differ in the last digit are compared by speed, not by talkativeness.
    By Little's law this is the rate at which as many users are served. Where an SLO is given, the
    value is multiplied by (limit / 90th percentile)⁴ for each limit that is missed.
    """

    scenario: Scenario
    streams: int
    slo: Slo | None = None
    sessions_each: int = SESSIONS_A_USER

    def sized(self, session_seconds: float, budget_seconds: float) -> Work:
        """With parts of a length that fits the budget, where a session takes so long."""
        wanted = PART_SHARE * budget_seconds / max(session_seconds, 1e-3)
        return replace(self, sessions_each=min(max(round(wanted), 1), MOST_SESSIONS))

    @property
    def label(self) -> str:
        """What a result was found for, as it is kept: `chat, 4 users, first token within 2 s`."""
        users = "1 user" if self.streams == 1 else f"{self.streams} users"
        slo = self.slo or Slo()
        limits = {
            "first token": slo.ttft_seconds,
            "a token": slo.inter_token_seconds,
            "an answer": slo.latency_seconds,
        }
        said = [f"{what} within {limit:g} s" for what, limit in limits.items() if limit is not None]
        return ", ".join((self.scenario.name, users, *said))

    def sessions(self, part: int, share: float, characters_per_token: float) -> tuple[Session, ...]:
        """Those of part number `part`; `share` of them, a whole number for each user. Where that
        would be less than one, one with prompts as much shorter; see `length`."""
        count = self._each(share) * self.streams
        if self.scenario.fixed:
            made = islice(self.scenario.sessions(part * count, characters_per_token), count)
            return tuple(_numbered(session, f"{part}.{n}") for n, session in enumerate(made))
        shorter = characters_per_token * self.length(share)
        return tuple(islice(self.scenario.sessions(part, shorter), count))

    def length(self, share: float) -> float:
        """By what prompts and answers are shortened, so that reading and writing keep their parts
        of the time: 1 where there is a whole session for each user, where a limit is on whole
        requests, and where a user's own prompts are sent."""
        if self.slo is not None or self.scenario.fixed:
            return 1.0
        return min(max(self.sessions_each * share, LEAST_LENGTH), 1.0)

    def real_share(self, share: float) -> float:
        """What `share` of a part comes to."""
        return self._each(share) * self.length(share) / self.sessions_each

    def _each(self, share: float) -> int:
        return max(round(self.sessions_each * share), 1)

    def value(
        self, result: LoadResult, sessions: tuple[Session, ...], length: float = 1.0
    ) -> float | None:
        """Requests per second, as above, with answers of `length` times what `sessions` say; None
        where no answer had a second token."""
        cost = costs(result, sessions, length)
        if cost is None:
            return None
        return self.streams / cost.seconds * self._kept(result.records)

    def _kept(self, records: tuple[RequestRecord, ...]) -> float:
        """1 where every limit is kept."""
        factor = 1.0
        for limit, taken in self.margins(records):
            if taken is not None and taken > limit:
                factor *= (limit / taken) ** STEEP
        return factor

    def margins(self, records: tuple[RequestRecord, ...]) -> list[tuple[float, float | None]]:
        """(limit, 90th percentile of what it bounds) of each limit, in seconds."""
        slo = self.slo
        if slo is None:
            return []
        pairs = (
            (slo.ttft_seconds, [r.ttft for r in records]),
            (slo.inter_token_seconds, [r.time_per_token for r in records]),
            (slo.latency_seconds, [r.latency for r in records]),
        )
        return [(limit, _tail(values)) for limit, values in pairs if limit is not None]

    def to_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "streams": self.streams,
            "prompt_tokens": self.scenario.prompt_tokens,
            "output_tokens": self.scenario.output_tokens,
            "slo": None if self.slo is None else self.slo.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a typical request. `length` is the mean length of an answer that was asked for."""

    ttft: float
    per_token: float
    length: float

    @property
    def seconds(self) -> float:
        return self.ttft + self.per_token * max(self.length - 1, 0.0)


def costs(result: LoadResult, sessions: tuple[Session, ...], length: float = 1.0) -> Costs | None:
    """What the requests of `sessions` cost; None where no answer had a second token."""
    whole = [record for record in result.records if record.error is None]
    firsts = [record.ttft for record in whole if record.ttft is not None]
    between = sum(r.piece_times[-1] - r.piece_times[0] for r in whole if len(r.piece_times) > 1)
    tokens = sum(record.tokens - 1 for record in whole if len(record.piece_times) > 1)
    if not firsts or tokens <= 0:
        return None
    lengths = [sessions[r.session].turns[r.turn].max_tokens for r in whole]
    mean = length * sum(lengths) / len(lengths)
    return Costs(sum(firsts) / len(firsts), between / tokens, mean)


def _numbered(session: Session, number: str) -> Session:
    """With a number before what the user says first: a file's prompts come again, and whoever had
    them before would find them in its cache."""

    def begun(turn: Turn) -> Turn:
        messages = list(turn.messages)
        for place, message in enumerate(messages):
            if message.get("role") == "user" and isinstance(message.get("content"), str):
                messages[place] = {**message, "content": f"({number}) {message['content']}"}
                break
        return replace(turn, messages=tuple(messages))

    return replace(session, turns=tuple(map(begun, session.turns)))


def _tail(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[min(int(0.9 * len(known)), len(known) - 1)] if known else None
