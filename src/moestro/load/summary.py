"""A load's figures, defined as the field's load generators define them.

TTFT        first piece of the answer − request sent          (vLLM, guidellm, aiperf)
ITL         each gap between two pieces, all requests' pooled (vLLM "itl"; aiperf: "inter chunk
            latency")
TPOT        (last piece − first piece) / (output tokens − 1), one value per request
            (vLLM "tpot"; guidellm and aiperf call this one "inter-token latency")
latency     end of the answer − request sent                  (vLLM "e2el", aiperf and guidellm
            "request latency")
per second  sums over whole answers / duration, which lasts from the start of the load to the end
            of its last request                               (vLLM, aiperf)
goodput     requests per second that met every limit of an SLO (vLLM, aiperf)

Percentiles are interpolated linearly, as numpy does. Requests that failed count as errors only, and
as requests that missed the SLO. Warm-up requests are not in a load's records.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moestro.load.energy import Energy
from moestro.load.record import RequestRecord
from moestro.load.result import LoadResult


@dataclass(frozen=True, slots=True)
class Slo:
    """What a request must keep to; None is no limit. `inter_token_seconds` bounds the mean time per
    token after the first (TPOT), as in vLLM's and aiperf's goodput. TTFT and latency count from
    when the request was due."""

    ttft_seconds: float | None = None
    inter_token_seconds: float | None = None
    latency_seconds: float | None = None

    def met_by(self, record: RequestRecord) -> bool:
        """An answer of a single token has no time per token and cannot miss that limit; one
        without any token misses a limit on the first."""
        if record.error is not None:
            return False
        ttft, per_token = record.ttft_from_due, record.time_per_token
        if self.ttft_seconds is not None and (ttft is None or ttft > self.ttft_seconds):
            return False
        limit = self.inter_token_seconds
        if limit is not None and per_token is not None and per_token > limit:
            return False
        return self.latency_seconds is None or record.latency_from_due <= self.latency_seconds

    def to_json(self) -> dict[str, Any]:
        return {
            "ttft_seconds": self.ttft_seconds,
            "inter_token_seconds": self.inter_token_seconds,
            "latency_seconds": self.latency_seconds,
        }


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds. Of `count` values."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    least: float
    most: float

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean_seconds": self.mean,
            "p50_seconds": self.p50,
            "p90_seconds": self.p90,
            "p95_seconds": self.p95,
            "p99_seconds": self.p99,
            "min_seconds": self.least,
            "max_seconds": self.most,
        }


@dataclass(frozen=True, slots=True)
class Goodput:
    """`share` of all requests, failed ones included."""

    slo: Slo
    requests: int
    requests_per_second: float
    share: float

    def to_json(self) -> dict[str, Any]:
        return {
            "slo": self.slo.to_json(),
            "requests": self.requests,
            "requests_per_second": self.requests_per_second,
            "share": self.share,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """`requests` were answered whole, `errors` were not; the other figures are of the former. None
    is unknown: the endpoint did not say, or no request was answered.

    `counted_pieces`: the endpoint did not count its tokens, so the pieces of its streams were
    counted instead. `cached_ratio` is the share of prompt tokens that were found in a cache.
    `acceptance` is accepted / drafted tokens; `acceptance_by_position` comes from outside, HTTP
    carries only totals. `late_seconds` is the longest that a request waited in this client.
    """

    requests: int
    errors: int
    seconds: float
    ttft: Spread | None
    inter_token: Spread | None
    time_per_token: Spread | None
    latency: Spread | None
    ttft_from_due: Spread | None
    latency_from_due: Spread | None
    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    counted_pieces: bool
    requests_per_second: float
    prompt_tokens_per_second: float | None
    output_tokens_per_second: float | None
    total_tokens_per_second: float | None
    cached_ratio: float | None
    drafted: int | None
    accepted: int | None
    acceptance_by_position: tuple[float, ...] | None
    goodput: Goodput | None
    energy: Energy | None
    late_seconds: float
    error_counts: tuple[tuple[str, int], ...]
    """Sentences and how many requests ended with each, the most frequent first."""

    @property
    def acceptance(self) -> float | None:
        if self.drafted is None or self.accepted is None or self.drafted == 0:
            return None
        return self.accepted / self.drafted

    @property
    def joules_per_output_token(self) -> float | None:
        if self.energy is None or not self.output_tokens:
            return None
        return self.energy.joules / self.output_tokens

    def to_json(self) -> dict[str, Any]:
        spreads = {
            "ttft": self.ttft,
            "inter_token": self.inter_token,
            "time_per_token": self.time_per_token,
            "latency": self.latency,
            "ttft_from_due": self.ttft_from_due,
            "latency_from_due": self.latency_from_due,
        }
        by_position = self.acceptance_by_position
        return {
            "requests": self.requests,
            "errors": self.errors,
            "seconds": self.seconds,
            **{name: spread.to_json() if spread else None for name, spread in spreads.items()},
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "counted_pieces": self.counted_pieces,
            "requests_per_second": self.requests_per_second,
            "prompt_tokens_per_second": self.prompt_tokens_per_second,
            "output_tokens_per_second": self.output_tokens_per_second,
            "total_tokens_per_second": self.total_tokens_per_second,
            "cached_ratio": self.cached_ratio,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "acceptance": self.acceptance,
            "acceptance_by_position": None if by_position is None else list(by_position),
            "goodput": self.goodput.to_json() if self.goodput else None,
            "energy": self.energy.to_json() if self.energy else None,
            "joules_per_output_token": self.joules_per_output_token,
            "late_seconds": self.late_seconds,
            "error_counts": [
                {"error": error, "requests": count} for error, count in self.error_counts
            ],
        }


def summarise(
    result: LoadResult,
    slo: Slo | None = None,
    *,
    acceptance_by_position: Sequence[float] | None = None,
) -> Summary:
    whole = [record for record in result.records if record.error is None]
    failed = [record for record in result.records if record.error is not None]
    prompt_tokens = _total(record.prompt_tokens for record in whole)
    counted_pieces = any(record.output_tokens is None for record in whole)
    output_tokens = sum(record.tokens for record in whole) if whole else None
    cached_tokens = _total(record.cached_tokens for record in whole)
    cached_ratio = None
    if prompt_tokens and cached_tokens is not None:
        cached_ratio = min(cached_tokens / prompt_tokens, 1.0)

    def per_second(amount: float | None) -> float | None:
        return None if amount is None or result.seconds <= 0 else amount / result.seconds

    both = prompt_tokens is not None and output_tokens is not None
    return Summary(
        requests=len(whole),
        errors=len(failed),
        seconds=result.seconds,
        ttft=spread_of(record.ttft for record in whole),
        inter_token=spread_of(gap for record in whole for gap in record.gaps),
        time_per_token=spread_of(record.time_per_token for record in whole),
        latency=spread_of(record.latency for record in whole),
        ttft_from_due=spread_of(record.ttft_from_due for record in whole),
        latency_from_due=spread_of(record.latency_from_due for record in whole),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        counted_pieces=counted_pieces,
        requests_per_second=per_second(len(whole)) or 0.0,
        prompt_tokens_per_second=per_second(prompt_tokens),
        output_tokens_per_second=per_second(output_tokens),
        total_tokens_per_second=per_second(
            (prompt_tokens or 0) + (output_tokens or 0) if both else None
        ),
        cached_ratio=cached_ratio,
        drafted=_known(record.drafted for record in whole),
        accepted=_known(record.accepted for record in whole),
        acceptance_by_position=(
            None if acceptance_by_position is None else tuple(acceptance_by_position)
        ),
        goodput=None if slo is None else _goodput(result, slo),
        energy=result.energy,
        late_seconds=max((record.sent - record.due for record in result.records), default=0.0),
        error_counts=tuple(Counter(record.error or "" for record in failed).most_common()),
    )


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """None without values; those that are None are left out."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Spread(
        count=len(known),
        mean=math.fsum(known) / len(known),
        p50=percentile(known, 50),
        p90=percentile(known, 90),
        p95=percentile(known, 95),
        p99=percentile(known, 99),
        least=known[0],
        most=known[-1],
    )


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Between the two nearest of the sorted values, in proportion (numpy's default)."""
    place = (len(ascending) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


def _goodput(result: LoadResult, slo: Slo) -> Goodput:
    good = sum(slo.met_by(record) for record in result.records)
    rate = good / result.seconds if result.seconds > 0 else 0.0
    return Goodput(slo, good, rate, good / len(result.records) if result.records else 0.0)


def _total(values: Iterable[int | None]) -> int | None:
    """None where one is unknown: a part is not the whole."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return sum(known) if known and len(known) == len(listed) else None


def _known(values: Iterable[int | None]) -> int | None:
    """The sum of those that are known: an engine leaves draft counts out where it drafted none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
