"""How much one caller may ask for: requests per minute, and requests at the same time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from moestro.gateway import failure
from moestro.gateway.failure import RequestFailed

_ROUNDING = 1e-6
_FIRST_SWEEP = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit."""

    requests_per_minute: int | None = None
    concurrent: int | None = None


UNLIMITED = Limits()


class TokenBucket:
    """Holds `per_minute` tokens at most, begins full, and gains as many in a minute, evenly. So
    after a pause a whole minute's requests may come at once. `now` is in seconds, of any clock that
    never goes back."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._tokens = float(per_minute)
        self._at = now

    def take(self, now: float) -> float:
        """Takes a token and returns 0, or takes none and returns the seconds until there is one."""
        self._fill(now)
        if self._tokens >= 1 - _ROUNDING:
            self._tokens = max(0.0, self._tokens - 1)
            return 0.0
        return (1 - self._tokens) * 60 / self.per_minute

    def is_full(self, now: float) -> bool:
        """A full bucket is as good as none: nothing is forgotten with it."""
        self._fill(now)
        return self._tokens >= self.per_minute

    def _fill(self, now: float) -> None:
        gained = (now - self._at) * self.per_minute / 60
        self._tokens = min(float(self.per_minute), self._tokens + gained)
        self._at = now


class Slots:
    """How many requests of a caller are in progress."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, most: int | None) -> bool:
        """Whether there was one more; `most` is None where nothing limits them."""
        if most is not None and self.taken >= most:
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        assert self.taken > 0, "given back more often than taken"
        self.taken -= 1


class Turnstile:
    """The limits of all callers. Remembers those alone who have a request in progress, or sent one
    in the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._slots: dict[str, Slots] = {}
        self._sweep_at = _FIRST_SWEEP

    @property
    def remembered(self) -> int:
        return len(self._buckets.keys() | self._slots.keys())

    def running(self, caller: str) -> int:
        """Requests of this caller that are in progress."""
        slots = self._slots.get(caller)
        return 0 if slots is None else slots.taken

    def enter(self, caller: str, limits: Limits) -> None:
        """For a request, which has to `leave` however it ends.

        Raises:
            RequestFailed: 429, with Retry-After. A request that found no place costs no token.
        """
        slots = self._slots.setdefault(caller, Slots())
        if not slots.take(limits.concurrent):
            assert limits.concurrent is not None
            raise RequestFailed(failure.too_many_at_once(limits.concurrent))
        try:
            self._spend(caller, limits.requests_per_minute)
        except RequestFailed:
            self.leave(caller)
            raise

    def leave(self, caller: str) -> None:
        slots = self._slots[caller]
        slots.give_back()
        if not slots.taken:
            del self._slots[caller]

    def _spend(self, caller: str, per_minute: int | None) -> None:
        if per_minute is None:
            return
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None or bucket.per_minute != per_minute:
            self._sweep(now)
            bucket = self._buckets[caller] = TokenBucket(per_minute, now)
        seconds = bucket.take(now)
        if seconds:
            raise RequestFailed(failure.rate_limited(per_minute, math.ceil(seconds)))

    def _sweep(self, now: float) -> None:
        if len(self._buckets) < self._sweep_at:
            return
        self._buckets = {
            caller: bucket for caller, bucket in self._buckets.items() if not bucket.is_full(now)
        }
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._buckets))
