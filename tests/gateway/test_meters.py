"""What is counted of requests, without a clock where that can be."""

from __future__ import annotations

import json

import pytest

from moestro.gateway.meters import (
    LENGTH_BOUNDS,
    MOST_READ_BYTES,
    REQUEST_BOUNDS,
    TOKEN_BOUNDS,
    TTFT_BOUNDS,
    Meters,
    Pace,
    Tally,
    percentile,
    told,
)

TIMINGS = {
    "cache_n": 7,
    "prompt_n": 5,
    "prompt_ms": 250.0,
    "predicted_n": 9,
    "predicted_ms": 1500.0,
    "draft_n": 4,
    "draft_n_accepted": 3,
}


def event(**data: object) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


@pytest.mark.parametrize("bounds", [TTFT_BOUNDS, TOKEN_BOUNDS, REQUEST_BOUNDS, LENGTH_BOUNDS])
def test_buckets_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_a_tally_puts_a_bound_into_its_own_bucket() -> None:
    tally = Tally((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 1), (1.5, 3), (9.0, 1)):
        tally.add(value, times)
    assert tally.buckets() == [("1.0", 2), ("2.0", 5), ("+Inf", 6)]
    assert tally.total == 15.0


def test_the_pace_forgets_what_is_older_than_its_ring() -> None:
    pace = Pace()
    pace.add(10.2, 3)
    pace.add(10.9, 2)
    pace.add(11.0, 1)
    assert pace.last(12.5, 3) == [0, 5, 1]
    assert pace.last(310.0 + 12, 299)[:2] == [0, 0]
    pace.add(310.5, 4)  # the place that 10 had
    assert sum(pace.last(311.0, 299)) == 4


@pytest.mark.parametrize("tokens", [0, 1, 7, 1000])
@pytest.mark.parametrize("seconds", [0.0, 0.4, 3.2, 1e6])
def test_spreading_loses_no_token(tokens: int, seconds: float) -> None:
    pace = Pace()
    pace.spread(1000.5, tokens, seconds)
    assert sum(pace.last(1001.0, 299)) == tokens


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.99) == 3.0
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]


@pytest.mark.parametrize(
    ("datas", "prompt", "written", "reason"),
    [
        ([{"choices": [{"finish_reason": "length"}], "timings": TIMINGS}], 12, 9, "length"),
        ([{"choices": [{"finish_reason": "tool_calls"}]}], None, None, "stop"),
        (
            [
                {"choices": [{"finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
            ],
            3,
            4,
            "stop",
        ),
        (  # Anthropic's, whose input does not count what the cache had
            [{"usage": {"input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 2}}],
            8,
            2,
            "stop",
        ),
        (
            [{"delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 6}}],
            None,
            6,
            "length",
        ),
        (
            [{"response": {"status": "incomplete", "usage": {"input_tokens": 1}}}],
            1,
            None,
            "length",
        ),
        ([{"timings": {"prompt_n": "x", "predicted_n": -1}, "usage": 3}], None, None, "stop"),
        ([{"choices": "no", "response": [], "timings": None}], None, None, "stop"),
    ],
)
def test_what_the_end_of_an_answer_tells(
    datas: list[dict[str, object]], prompt: int | None, written: int | None, reason: str
) -> None:
    found = told(datas)
    assert (found.prompt, found.written, found.reason) == (prompt, written, reason)


def test_a_stream_is_counted_once_whatever_follows() -> None:
    meters = Meters()
    meter = meters.request()
    meter.turn()
    meter.heard([])
    for _ in range(9):
        meter.heard([event(choices=[{"delta": {"content": "x"}}])])
    meter.heard([event(choices=[{"finish_reason": "stop"}], timings=TIMINGS), b"data: [DONE]\n\n"])
    for _ in range(2):
        meter.streamed()
        meter.left()
        meter.failed("late")
    assert meters.ends == {"stop": 1}
    assert not meters.failures
    assert (meters.prompt_tokens, meters.cached_tokens, meters.written_tokens) == (12, 7, 9)
    assert (meters.drafted_tokens, meters.accepted_tokens) == (4, 3)
    assert sum(meters.first_token.counts) == 1
    assert sum(meters.between_tokens.counts) == 10
    assert (meters.reading.total, meters.writing.total) == (0.25, 1.5)
    (ended,) = meters.within()
    assert ended.first is not None
    assert 0 <= ended.waited <= ended.first <= ended.whole
    assert ended.between is not None


def test_an_answer_at_once_is_counted_by_the_engines_own_times() -> None:
    meters = Meters()
    meter = meters.request()
    meter.turn()
    meter.answered(
        json.dumps({"choices": [{"finish_reason": "stop"}], "timings": TIMINGS}).encode()
    )
    assert meters.written_tokens == 9
    (ended,) = meters.within()
    assert ended.first == 0.0  # it took less than the engine says that it wrote
    assert ended.between == pytest.approx(1.5 / 9)


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"[" * 100_000, b"x" * MOST_READ_BYTES])
def test_an_answer_that_tells_nothing_is_still_an_answer(body: bytes) -> None:
    meters = Meters()
    meters.request().answered(body)
    assert meters.ends == {"stop": 1}
    assert meters.written_tokens == 0


def test_what_a_lost_engine_wrote_counts_and_so_does_what_nobody_heard_to_the_end() -> None:
    meters = Meters()
    meter = meters.request()
    meter.turn()
    meter.heard([b"data: 1\n\n", b"data: 2\n\n"])
    meter.broke()
    meter.turn()
    meter.heard([b"data: 3\n\n"])
    meter.left()
    assert (meters.interrupted, meters.written_tokens) == (1, 3)
    assert meters.ends == {"abort": 1}
    assert sum(meters.waited.counts) == 1  # the wait for the first engine


def test_anthropic_s_form_has_its_prompt_at_the_beginning() -> None:
    meters = Meters()
    meter = meters.request()
    usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 0}
    meter.heard([event(type="message_start", message={"usage": usage})])
    for _ in range(9):
        meter.heard([event(type="content_block_delta")])
    meter.heard([event(type="message_delta", usage={"output_tokens": 9})])
    meter.streamed()
    assert (meters.prompt_tokens, meters.cached_tokens, meters.written_tokens) == (12, 7, 9)


@pytest.mark.parametrize(("had", "prompt", "written"), [(4, 24, 6), (0, 20, 10)])
def test_an_answer_of_two_engines_counts_once(had: int, prompt: int, written: int) -> None:
    """The second one goes on behind four tokens, or tells all of it again."""
    meters = Meters()
    meter = meters.request()
    meter.heard([event(choices=[])] * 5)
    meter.broke()
    meter.resumes(had)
    usage = {"prompt_tokens": prompt, "completion_tokens": written}
    meter.heard([event(usage=usage)])
    meter.streamed()
    assert meter.ended is not None
    assert (meter.ended.prompt, meter.ended.written) == (20, 10)
    assert (meters.prompt_tokens, meters.written_tokens) == (20, 10)


def test_cached_tokens_without_timings() -> None:
    details = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 6}}
    assert told([{"usage": details}]).cached == 6
    details = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 5}}
    assert told([{"usage": details}]).cached == 5
