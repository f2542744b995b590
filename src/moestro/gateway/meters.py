"""What requests took, counted: plain numbers that one event loop adds up.

A relay tells its `RequestMeter` what happened. For each piece of a stream that is one reading of
the clock and a few additions; the engine's own figures are read once, from the end of the answer.
"""

from __future__ import annotations

import json
import math
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moestro.gateway.answer_events import Event

TTFT_BOUNDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BOUNDS = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
LENGTH_BOUNDS = tuple(
    float(digit * 10**power) for power in range(6) for digit in (1, 2, 5)
)  # fmt: skip
"""Upper ends of buckets: vLLM's own, with finer ones below where small models on a CPU lie. Times
in seconds, lengths in tokens; a value that equals an end lies in its bucket."""

TAIL_EVENTS = 4
"""The end of a stream: why it ended, its usage, its last word."""

MOST_READ_BYTES = 4 << 20
"""A whole answer that is longer (log probabilities) is passed on, but its figures are not read:
that would hold up everybody else."""

RECENT_SECONDS = 300.0
MOST_RECENT = 4096
PACE_SECONDS = 300

STOP, LENGTH, ABORT, ERROR = "stop", "length", "abort", "error"
_REASONS = dict.fromkeys(("length", "max_tokens", "max_output_tokens", "incomplete"), LENGTH)


class Tally:
    """A histogram: `counts` of values up to each of `bounds`, and beyond the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: upper end and how many values lie at or below it."""
        ends = [*(repr(bound) for bound in self.bounds), "+Inf"]
        running, found = 0, []
        for end, count in zip(ends, self.counts, strict=True):
            running += count
            found.append((end, float(running)))
        return found


class Pace:
    """Tokens by second, for the last `PACE_SECONDS`."""

    def __init__(self) -> None:
        self._tokens = [0] * PACE_SECONDS
        self._seconds = [-1] * PACE_SECONDS

    def add(self, now: float, tokens: int) -> None:
        second = int(now)
        place = second % PACE_SECONDS
        if self._seconds[place] != second:
            self._seconds[place] = second
            self._tokens[place] = 0
        self._tokens[place] += tokens

    def last(self, now: float, seconds: int) -> list[int]:
        """Of each of the last whole seconds, the newest last."""
        end = int(now)
        wanted = range(end - min(seconds, PACE_SECONDS - 1), end)
        return [
            max(self._tokens[at % PACE_SECONDS], 0) if self._seconds[at % PACE_SECONDS] == at else 0
            for at in wanted
        ]

    def spread(self, end: float, tokens: int, seconds: float) -> None:
        """Tokens that were written evenly until now, of which nobody told before."""
        whole = max(1, min(math.ceil(seconds), PACE_SECONDS - 1))
        for step in range(whole):
            share = tokens * (step + 1) // whole - tokens * step // whole
            self.add(end - (whole - 1 - step), share)


@dataclass(frozen=True, slots=True)
class Told:
    """What the engine says at the end of an answer. None where it does not."""

    prompt: int | None = None
    cached: int | None = None
    written: int | None = None
    prompt_seconds: float | None = None
    write_seconds: float | None = None
    drafted: int = 0
    accepted: int = 0
    reason: str = STOP


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _seconds(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        return None
    return float(value) / 1000


def told(datas: Iterable[Mapping[str, Any]]) -> Told:
    """Reads the last events of a stream, or a whole answer, of any of the APIs."""
    usage: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    reason = STOP
    for data in datas:
        for place in (data, data.get("response"), data.get("message"), data.get("delta")):
            if not isinstance(place, dict):
                continue
            if isinstance(found := place.get("usage"), dict):
                usage |= found
            if isinstance(found := place.get("timings"), dict):
                timings = found
            for name in ("stop_reason", "status"):
                if isinstance(found := place.get(name), str):
                    reason = _REASONS.get(found, reason)
        choices = data.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and isinstance(found := choice.get("finish_reason"), str):
                reason = _REASONS.get(found, STOP)
    return _told(usage, timings, reason)


def _told(usage: Mapping[str, Any], timings: Mapping[str, Any], reason: str) -> Told:
    read, cached = _whole(timings.get("prompt_n")), _whole(timings.get("cache_n"))
    if cached is None:
        cached = _cached(usage)
    prompt = _whole(usage.get("prompt_tokens"))
    if prompt is None:
        prompt = _whole(usage.get("input_tokens"))
        beside = _whole(usage.get("cache_read_input_tokens"))  # Anthropic's do not count these
        prompt = prompt + beside if prompt is not None and beside else prompt
    if prompt is None and read is not None:
        prompt = read + (cached or 0)
    written = _whole(usage.get("completion_tokens"))
    if written is None:
        written = _whole(usage.get("output_tokens"))
    if written is None:
        written = _whole(timings.get("predicted_n"))
    return Told(
        prompt,
        cached,
        written,
        _seconds(timings.get("prompt_ms")),
        _seconds(timings.get("predicted_ms")),
        _whole(timings.get("draft_n")) or 0,
        _whole(timings.get("draft_n_accepted")) or 0,
        reason,
    )


def _cached(usage: Mapping[str, Any]) -> int | None:
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = usage.get(name)
        if (
            isinstance(details, dict)
            and (found := _whole(details.get("cached_tokens"))) is not None
        ):
            return found
    return _whole(usage.get("cache_read_input_tokens"))


@dataclass(frozen=True, slots=True)
class Ended:
    """One request that is over. Times in seconds; None where nothing tells."""

    at: float
    reason: str
    """`stop` or `length`; `abort` if the client left, `error` if there was no answer."""

    whole: float
    waited: float
    written: int
    """Tokens, those included that an engine wrote before it ended."""

    prompt: int | None = None
    cached: int | None = None
    first: float | None = None
    between: float | None = None
    """Mean time between two tokens."""

    pause: float | None = None
    """The longest one between two pieces of the stream."""

    failure: str | None = None
    """The error's code."""


@dataclass(slots=True)
class Meters:
    """All that was counted since the gateway began."""

    first_token: Tally = field(default_factory=lambda: Tally(TTFT_BOUNDS))
    between_tokens: Tally = field(default_factory=lambda: Tally(TOKEN_BOUNDS))
    mean_between_tokens: Tally = field(default_factory=lambda: Tally(TOKEN_BOUNDS))
    whole: Tally = field(default_factory=lambda: Tally(REQUEST_BOUNDS))
    waited: Tally = field(default_factory=lambda: Tally(REQUEST_BOUNDS))
    reading: Tally = field(default_factory=lambda: Tally(REQUEST_BOUNDS))
    writing: Tally = field(default_factory=lambda: Tally(REQUEST_BOUNDS))
    prompt_lengths: Tally = field(default_factory=lambda: Tally(LENGTH_BOUNDS))
    answer_lengths: Tally = field(default_factory=lambda: Tally(LENGTH_BOUNDS))
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    interrupted: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    http: Counter[tuple[str, int]] = field(default_factory=Counter)
    pace: Pace = field(default_factory=Pace)
    recent: deque[Ended] = field(default_factory=lambda: deque(maxlen=MOST_RECENT))

    def request(self) -> RequestMeter:
        """For one that arrives now."""
        return RequestMeter(self)

    def within(self, seconds: float = RECENT_SECONDS) -> list[Ended]:
        """The requests that ended not longer ago."""
        since = time.monotonic() - seconds
        return [one for one in self.recent if one.at >= since]


class RequestMeter:
    """One request, from its arrival to the end of its answer. Told by its relay, which has the
    moment of each piece of a stream from `heard`."""

    __slots__ = (
        "_before",
        "_events",
        "_first",
        "_from",
        "_had",
        "_head",
        "_last",
        "_longest",
        "_meters",
        "_tail",
        "_turn",
        "ended",
        "interrupted",
    )  # fmt: skip

    def __init__(self, meters: Meters) -> None:
        self.ended: Ended | None = None
        self.interrupted = 0
        """Engines that ended while it was with them."""

        self._meters = meters
        self._from = time.monotonic()
        self._turn: float | None = None
        self._first: float | None = None
        self._last = 0.0
        self._longest = 0.0
        self._events = 0
        self._before = 0
        self._had = 0
        self._head = b""
        self._tail: deque[bytes] = deque(maxlen=TAIL_EVENTS)

    def turn(self) -> None:
        """It is with an engine."""
        if self._turn is None:
            self._turn = time.monotonic()
            self._meters.waited.add(self._turn - self._from)

    def heard(self, events: list[bytes]) -> float:
        """A piece of its stream came, with these whole events; the moment, on the monotonic
        clock."""
        now = time.monotonic()
        count = len(events)
        if not count:
            return now
        self._tail.extend(events)
        self._events += count
        meters = self._meters
        meters.pace.add(now, count)
        if self._first is None:
            self._first, self._head = now, events[0]
            meters.first_token.add(now - self._from)
        else:
            gap = now - self._last
            if gap > self._longest:
                self._longest = gap
            meters.between_tokens.add(gap / count, count)
        self._last = now
        return now

    def broke(self) -> None:
        """Its engine ended; another one may go on. What it wrote until then counts."""
        self._meters.interrupted += 1
        self.interrupted += 1
        self._before, self._events = self._before + self._events, 0
        self._tail.clear()

    def resumes(self, had_tokens: int) -> None:
        """Another engine goes on; it reads so many tokens that are the answer's. None of them: it
        tells the whole answer again."""
        self._before = self._had = had_tokens

    def streamed(self, *, cut: bool = False) -> None:
        """Its stream is whole. `cut`: it would have gone on, and its engine does not say so."""
        said = told(event.data for raw in self._tail if (event := Event(raw)).data)
        if said.prompt is not None:
            said = replace(said, prompt=max(said.prompt - self._had, 0))
        elif data := Event(self._head).data:  # Anthropic's form has it at the beginning
            at_first = told([data])
            said = replace(said, prompt=at_first.prompt, cached=said.cached or at_first.cached)
        if cut:
            said = replace(said, reason=LENGTH)
        self._close(said, time.monotonic(), streamed=True)

    def answered(self, body: bytes) -> None:
        """It was answered at once."""
        data: Any = None
        if len(body) <= MOST_READ_BYTES:
            try:
                data = json.loads(body)
            except (ValueError, RecursionError):
                data = None
        now = time.monotonic()
        if self.ended is not None:
            return
        said = told([data] if isinstance(data, dict) else [])
        self._close(said, now, streamed=False)

    def failed(self, code: str) -> None:
        if self.ended is None:
            self._meters.failures[code] += 1
            self._broken_off(ERROR, code)

    def left(self) -> None:
        """Nobody waits for it any more. Does nothing after its end."""
        if self.ended is None:
            self._broken_off(ABORT)

    def _broken_off(self, reason: str, code: str | None = None) -> None:
        written, now = self._before + self._events, time.monotonic()
        self._meters.ends[reason] += 1
        self._meters.written_tokens += written
        first = self._first - self._from if self._first is not None else None
        waited = (self._turn or now) - self._from
        whole = now - self._from
        self.ended = Ended(now, reason, whole, waited, written, first=first, failure=code)

    def _close(self, said: Told, now: float, *, streamed: bool) -> None:
        if self.ended is not None:
            return
        meters = self._meters
        meters.ends[said.reason] += 1
        whole = now - self._from
        meters.whole.add(whole)
        written = self._count(said, now, streamed=streamed)
        first = self._first - self._from if self._first is not None else None
        between = None
        if streamed and self._first is not None and said.written and written > 1:
            between = (self._last - self._first) / (written - 1)
        elif not streamed and said.write_seconds is not None:
            first = max(whole - said.write_seconds, 0.0)
            meters.first_token.add(first)
            if said.written and said.written > 1:
                between = said.write_seconds / said.written
                meters.between_tokens.add(between, said.written - 1)
        if between is not None:
            meters.mean_between_tokens.add(between)
        waited = (self._turn or now) - self._from
        pause = self._longest if streamed and self._longest else None
        self.ended = Ended(
            now,
            said.reason,
            whole,
            waited,
            written,
            said.prompt,
            said.cached,
            first,
            between,
            pause,
        )
        meters.recent.append(self.ended)

    def _count(self, said: Told, now: float, *, streamed: bool) -> int:
        """The tokens of the answer."""
        meters = self._meters
        written = said.written if said.written is not None else self._events
        if streamed:
            meters.pace.add(now, written - self._events)
        elif written:
            meters.pace.spread(now, written, said.write_seconds or 0.0)
        meters.written_tokens += written + self._before
        meters.answer_lengths.add(written + self._before)
        if said.prompt is not None:
            meters.prompt_tokens += said.prompt
            meters.prompt_lengths.add(said.prompt)
        meters.cached_tokens += said.cached or 0
        meters.drafted_tokens += said.drafted
        meters.accepted_tokens += said.accepted
        if said.prompt_seconds is not None:
            meters.reading.add(said.prompt_seconds)
        if said.write_seconds is not None:
            meters.writing.add(said.write_seconds)
        return written + self._before


def percentile(values: Sequence[float], share: float) -> float | None:
    """By the nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
