"""Figures of loads, held against what other tools compute."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as some

from moestro.load import Energy, LoadResult, RequestRecord, Slo, summarise
from moestro.load.summary import percentile, spread_of


def record(**given: Any) -> RequestRecord:
    """Sent at 1 s, pieces at 1.5, 1.6 and 1.8 s, over at 2 s."""
    fields = {
        "session": 0, "turn": 0, "due": 1.0, "sent": 1.0, "piece_times": (1.5, 1.6, 1.8),
        "ended": 2.0, "prompt_tokens": 10, "cached_tokens": 4, "output_tokens": 3,
    } | given  # fmt: skip
    return RequestRecord(**fields)


def result(*records: RequestRecord, seconds: float = 4.0, **given: Any) -> LoadResult:
    return LoadResult("chat", 0, 1, None, seconds, records, **given)


FAILED = record(error="It broke.", error_code="x", output_tokens=None, piece_times=(1.2,))


@given(some.lists(some.floats(0, 1e6), min_size=1, max_size=50), some.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    ours = percentile(sorted(values), percent)
    assert ours == pytest.approx(float(numpy.percentile(values, percent)), rel=1e-9, abs=1e-9)


def test_a_spread() -> None:
    spread = spread_of([None, 3.0, 1.0, 2.0])
    assert spread is not None
    assert (spread.count, spread.mean, spread.p50, spread.least, spread.most) == (3, 2, 2, 1, 3)
    assert spread.p99 == pytest.approx(2.98)
    assert spread_of([None]) is None


def test_the_latencies_of_one_request() -> None:
    one = record()
    assert one.ttft == pytest.approx(0.5)
    assert one.gaps == pytest.approx((0.1, 0.2))
    assert one.time_per_token == pytest.approx(0.15)
    assert one.latency == pytest.approx(1.0)
    # Four tokens came in three pieces: the time is theirs, the gaps are the pieces'.
    assert record(output_tokens=4).time_per_token == pytest.approx(0.1)
    assert record(output_tokens=1, piece_times=(1.5,)).time_per_token is None
    assert record(piece_times=()).ttft is None
    assert record(due=0.5).latency_from_due == pytest.approx(1.5)
    assert record(due=0.5).ttft_from_due == pytest.approx(1.0)


def test_sums_and_rates_are_of_whole_answers() -> None:
    summary = summarise(result(record(), record(output_tokens=5, piece_times=(1.7, 1.9)), FAILED))
    assert (summary.requests, summary.errors) == (2, 1)
    assert (summary.prompt_tokens, summary.output_tokens, summary.cached_tokens) == (20, 8, 8)
    assert summary.requests_per_second == pytest.approx(0.5)
    assert summary.output_tokens_per_second == pytest.approx(2.0)
    assert summary.prompt_tokens_per_second == pytest.approx(5.0)
    assert summary.total_tokens_per_second == pytest.approx(7.0)
    assert summary.cached_ratio == pytest.approx(0.4)
    assert summary.ttft is not None
    assert summary.ttft.count == 2
    assert summary.inter_token is not None
    assert summary.inter_token.count == 3
    assert summary.time_per_token is not None
    assert summary.time_per_token.mean == pytest.approx((0.15 + 0.05) / 2)
    assert summary.error_counts == (("It broke.", 1),)
    assert not summary.counted_pieces


def test_what_nobody_counted_is_not_zero() -> None:
    bare = record(prompt_tokens=None, cached_tokens=None, output_tokens=None)
    summary = summarise(result(bare, record()))
    assert summary.counted_pieces
    assert summary.output_tokens == 6
    assert summary.prompt_tokens is None
    assert summary.prompt_tokens_per_second is None
    assert summary.total_tokens_per_second is None
    assert summary.cached_ratio is None
    assert summary.acceptance is None


def test_nothing_was_answered() -> None:
    summary = summarise(result(FAILED), Slo(1.0))
    assert summary.output_tokens is None
    assert summary.output_tokens_per_second is None
    assert summary.goodput is not None
    assert summary.goodput.share == 0
    empty = summarise(LoadResult("chat", 0, 1, None, 0.0, ()))
    assert (empty.requests, empty.requests_per_second, empty.latency) == (0, 0, None)
    json.dumps(empty.to_json())


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(), True),
        (Slo(ttft_seconds=0.5), True),
        (Slo(ttft_seconds=0.49), False),
        (Slo(inter_token_seconds=0.151), True),
        (Slo(inter_token_seconds=0.149), False),
        (Slo(latency_seconds=1.0), True),
        (Slo(latency_seconds=0.99), False),
        (Slo(0.5, 0.2, 0.9), False),
    ],
    ids=repr,
)
def test_limits(slo: Slo, met: bool) -> None:
    assert slo.met_by(record()) is met
    assert not slo.met_by(FAILED)


def test_limits_count_from_when_a_request_was_due() -> None:
    late = record(due=0.0)
    assert not Slo(ttft_seconds=1.0).met_by(late)
    assert not Slo(latency_seconds=1.5).met_by(late)
    assert Slo(latency_seconds=2.0).met_by(late)


def test_answers_too_short_for_a_limit() -> None:
    single = record(output_tokens=1, piece_times=(1.5,))
    assert Slo(inter_token_seconds=0.001).met_by(single)
    empty = record(output_tokens=0, piece_times=())
    assert not Slo(ttft_seconds=9.0).met_by(empty)
    assert Slo(latency_seconds=9.0).met_by(empty)


def test_goodput_counts_failed_requests_as_bad() -> None:
    found = summarise(result(record(), record(piece_times=(1.9, 1.95)), FAILED), Slo(0.6)).goodput
    assert found is not None
    assert (found.requests, found.requests_per_second) == (1, 0.25)
    assert found.share == pytest.approx(1 / 3)


def test_drafts_and_energy() -> None:
    # An engine that drafted nothing for a request says nothing of drafts.
    summary = summarise(
        result(record(drafted=10, accepted=6), record(), energy=Energy(30.0, 6.0)),
        acceptance_by_position=[0.8, 0.4],
    )
    assert summary.acceptance == pytest.approx(0.6)
    assert summary.acceptance_by_position == (0.8, 0.4)
    assert summary.joules_per_output_token == pytest.approx(6.0)
    assert summarise(result(record(drafted=0, accepted=0))).acceptance is None


def test_all_of_it_is_json() -> None:
    found = result(record(), FAILED, energy=Energy(None, 1.0), lost="gone")
    summary = summarise(found, Slo(1.0, None, 2.0)).to_json()
    text = json.dumps({**summary, **found.to_json()}, allow_nan=False)
    data = json.loads(text)
    assert data["ttft"]["p50_seconds"] == pytest.approx(0.5)
    assert data["goodput"]["slo"]["latency_seconds"] == 2.0
    assert [one["error"] for one in data["requests"]] == [None, "It broke."]
    assert data["energy"] == {"cpu_joules": None, "gpu_joules": 1.0, "joules": 1.0}
