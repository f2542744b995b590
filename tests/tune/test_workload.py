"""What a sample of the workload is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.load import SCENARIOS, LoadResult, RequestRecord, Slo
from moestro.load.prompt_file import from_file
from moestro.load.scenario import Session
from moestro.tune.workload import MOST_SESSIONS, Work, costs

CHAT = SCENARIOS["chat"]


def record(
    session: int,
    *,
    ttft: float = 1.0,
    per_token: float = 0.1,
    tokens: int = 11,
    error: str | None = None,
) -> RequestRecord:
    times = tuple(ttft + per_token * number for number in range(tokens))
    return RequestRecord(
        session=session,
        turn=0,
        due=0.0,
        sent=0.0,
        piece_times=times,
        ended=times[-1] if times else ttft,
        prompt_tokens=100,
        cached_tokens=0,
        output_tokens=tokens,
        error=error,
    )


def result(*records: RequestRecord) -> LoadResult:
    return LoadResult("chat", 0, 1, None, 10.0, records)


def sessions(count: int) -> tuple[Session, ...]:
    return Work(CHAT, 1).sessions(0, 1.0, 4.0)[:count]


def test_a_part_has_whole_sessions_for_every_user() -> None:
    work = Work(CHAT, 3)
    assert len(work.sessions(5, 1.0, 4.0)) == 12
    assert len(work.sessions(5, 0.25, 4.0)) == 3
    assert len(work.sessions(5, 0.01, 4.0)) == 3
    assert work.real_share(0.5) == 0.5
    assert work.sessions(5, 0.25, 4.0) == work.sessions(5, 1.0, 4.0)[:3]
    assert work.sessions(6, 0.25, 4.0) != work.sessions(5, 0.25, 4.0)


def test_less_than_a_session_is_a_shorter_one() -> None:
    work = Work(CHAT, 1, sessions_each=1)
    whole, half = (work.sessions(5, share, 4.0)[0].turns[0] for share in (1.0, 0.5))
    sizes = [sum(len(str(m["content"])) for m in turn.messages) for turn in (whole, half)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.15)
    assert work.length(0.5) == 0.5
    assert work.length(0.01) == 0.25
    assert work.real_share(0.01) == 0.25
    assert Work(CHAT, 1, sessions_each=4).length(0.25) == 1.0


def test_a_shorter_answer_is_counted_by_its_own_length() -> None:
    wanted = sessions(1)
    length = wanted[0].turns[0].max_tokens
    value = Work(CHAT, 1).value(result(record(0)), wanted, 0.5)
    assert value == pytest.approx(1 / (1.0 + 0.1 * (length / 2 - 1)))


def test_parts_are_as_long_as_the_budget_bears() -> None:
    work = Work(CHAT, 1)
    assert work.sized(2.0, 300.0).sessions_each == 4
    assert work.sized(60.0, 300.0).sessions_each == 1
    assert work.sized(0.0, 300.0).sessions_each == MOST_SESSIONS


def test_the_value_is_requests_of_full_length_per_second() -> None:
    wanted = sessions(1)
    length = wanted[0].turns[0].max_tokens
    value = Work(CHAT, 1).value(result(record(0)), wanted)
    assert value == pytest.approx(1 / (1.0 + 0.1 * (length - 1)))


def test_an_answer_that_ends_early_weighs_like_a_whole_one() -> None:
    wanted = sessions(1)
    short = Work(CHAT, 1).value(result(record(0, tokens=3)), wanted)
    long = Work(CHAT, 1).value(result(record(0, tokens=60)), wanted)
    assert short == pytest.approx(long)


def test_time_per_token_is_pooled_over_all_tokens() -> None:
    found = costs(
        result(record(0, per_token=0.1, tokens=101), record(1, per_token=0.5, tokens=2)),
        sessions(2),
    )
    assert found is not None
    assert found.per_token == pytest.approx((100 * 0.1 + 0.5) / 101)
    assert found.ttft == pytest.approx(1.0)


def test_streams_share_the_time() -> None:
    wanted = sessions(1)
    one = Work(CHAT, 1).value(result(record(0)), wanted)
    four = Work(CHAT, 4).value(result(record(0)), wanted)
    assert one is not None
    assert four == pytest.approx(4 * one)


@pytest.mark.parametrize("records", [(), (record(0, tokens=1),), (record(0, error="broke off"),)])
def test_without_a_second_token_there_is_no_value(records: tuple[RequestRecord, ...]) -> None:
    assert Work(CHAT, 1).value(result(*records), sessions(1)) is None


def test_an_slo_that_is_kept_changes_nothing() -> None:
    slo = Slo(ttft_seconds=1.0, inter_token_seconds=0.1001)
    wanted = sessions(1)
    plain = Work(CHAT, 1).value(result(record(0)), wanted)
    assert Work(CHAT, 1, slo).value(result(record(0)), wanted) == plain


def test_what_misses_its_slo_is_worth_less_the_further_it_is_off() -> None:
    wanted = sessions(1)
    work = Work(CHAT, 1, Slo(ttft_seconds=0.5))
    plain = Work(CHAT, 1).value(result(record(0)), wanted)
    twice = work.value(result(record(0)), wanted)
    assert plain is not None
    assert twice == pytest.approx(plain / 16)
    assert work.margins((record(0),)) == [(0.5, 1.0)]


def test_a_users_own_prompts_are_sent_whole_and_never_twice_alike(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": f"Q{n}"}]}
        for n in range(3)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    work = Work(from_file(path), 1, sessions_each=4)
    assert work.length(0.1) == 1.0
    said = [
        message["content"]
        for part in range(4)
        for session in work.sessions(part, 0.5, 4.0)
        for message in session.turns[0].messages
        if message["role"] == "user"
    ]
    assert len(set(said)) == len(said) == 8
    assert [text[-2:] for text in said] == ["Q0", "Q1", "Q2", "Q0", "Q1", "Q2", "Q0", "Q1"]
    first = work.sessions(0, 1.0, 4.0)[0].turns[0].messages
    assert [message["content"] for message in first] == ["S", "(0.0) Q0"]


def test_a_limit_is_held_against_whole_requests() -> None:
    work = Work(CHAT, 1, sessions_each=1)
    assert work.length(0.25) == 0.25
    assert replace(work, slo=Slo(ttft_seconds=1.0)).length(0.25) == 1.0
