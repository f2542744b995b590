"""Speed against waiting: which points are marked, which settings are measured, and how."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from moestro.cli.show_frontier import show_frontier
from moestro.errors import EngineError, GatewayError
from moestro.load import SCENARIOS, LoadResult, RequestRecord
from moestro.planning.settings import Settings
from moestro.tune.frontier import Frontier, FrontierPoint, LeftOut, Tolerance, dominates, marked
from moestro.tune.frontier_run import NO_TIME, measure_frontier, streams_of_frontier
from moestro.tune.result import Tried, TuneResult
from moestro.tune.rivals import Rival, rivals
from moestro.tune.statistics import Interval
from moestro.tune.workload import Work

BASE = Settings(context=512, parallel=4, threads=1)
QUICK = replace(BASE, ubatch=256)
MTP = replace(BASE, mtp_depth=1)


# Marking


def point(rate: float, latency: float, label: str = "chosen", streams: int = 1) -> FrontierPoint:
    return FrontierPoint(label, BASE, streams, rate, rate / 100, 0.1, 0.01, latency)


def best(points: list[FrontierPoint], tolerance: Tolerance) -> list[bool]:
    return [one.best for one in marked(points, tolerance)]


EXACT = Tolerance()
TENTH = Tolerance(0.1, 0.1)


def test_what_is_slower_and_later_is_not_marked() -> None:
    assert best([point(10, 1), point(20, 2), point(15, 3)], EXACT) == [True, True, False]


def test_points_within_noise_have_no_order() -> None:
    near = [point(10, 1), point(10.5, 0.97)]
    assert best(near, EXACT) == [False, True]
    assert best(near, TENTH) == [True, True]


def test_no_faster_beyond_noise_and_clearly_later_is_dominated() -> None:
    # More users than slots: they queue.
    assert best([point(100, 1, streams=4), point(102, 2, streams=8)], TENTH) == [True, False]


def test_each_figure_has_its_own_noise() -> None:
    two = [point(10, 1), point(10, 1.2)]
    assert best(two, Tolerance(0.5, 0.1)) == [True, False]
    assert best(two, Tolerance(0.1, 0.5)) == [True, True]


amounts = st.floats(1, 2)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=7), st.floats(0, 0.4))
def test_one_point_is_always_left(pairs: list[tuple[float, float]], relative: float) -> None:
    tolerance = Tolerance(relative, relative)
    points = marked([point(*pair) for pair in pairs], tolerance)
    assert any(one.best for one in points)
    for one in points:
        assert one.best != any(dominates(other, one, tolerance) for other in points)


def test_the_order_of_points_is_no_matter() -> None:
    points = [point(10, 1), point(20, 2), point(15, 3), point(19, 1.9)]
    for some in permutations(points):
        found = {one.tokens_per_second: one.best for one in marked(some, TENTH)}
        assert found == {10: True, 20: True, 15: False, 19: True}


# Rivals


def tried(settings: Settings, outcome: Any, ratio: float | None, **figures: float) -> Tried:
    interval = None if ratio is None else Interval(ratio, ratio * 0.95, ratio * 1.05)
    return Tried(str(settings.ubatch), "ubatch", outcome, "", settings, ratio=interval,
                 figures=figures)  # fmt: skip


def result(chosen: Settings, *trials: Tried, gain: Interval | None = None) -> TuneResult:
    return TuneResult(
        objective="requests per second", start=BASE, settings=chosen,
        gain=gain or Interval(1.5, 1.4, 1.6), confirmed=True, trials=trials, reasons=(),
        spent_seconds=1.0, budget_seconds=1.0, noise=0.03,
    )  # fmt: skip


def ubatch(number: int) -> Settings:
    return replace(BASE, ubatch=number)


def figures(first: float, each: float) -> dict[str, float]:
    return {
        "ttft_seconds": first,
        "time_per_token_seconds": each,
        "latency_p90_seconds": first + 100 * each,
    }


CHOSEN = tried(QUICK, "chosen", 1.5, **figures(1.0, 0.1))
BEGAN = tried(BASE, "start", 1.0, **figures(1.5, 0.15))


def test_rivals_are_the_chosen_the_start_and_what_may_trade() -> None:
    found = rivals(
        result(
            QUICK, BEGAN, CHOSEN,
            tried(ubatch(1), "lost", 0.8, **figures(1.3, 0.13)),  # clearly worse
            tried(ubatch(2), "lost", 0.9, **figures(0.4, 0.2)),  # a first token in 0.4 of the time
            tried(ubatch(3), "no-difference", 1.2, **figures(1.4, 0.15)),
            tried(ubatch(4), "won", 1.45, **figures(1.1, 0.12)),
            tried(ubatch(5), "crashed", None),
            tried(ubatch(6), "excluded", None),
        ),
    )  # fmt: skip
    assert [one.label for one in found] == ["chosen", "start", "2", "4"]
    assert found[0].request_seconds == pytest.approx(11.0)
    assert found[1].settings == BASE


def test_a_first_token_of_shortened_prompts_is_no_reason() -> None:
    trials = (BEGAN, CHOSEN, tried(ubatch(2), "lost", 0.9, **figures(0.4, 0.2)))
    assert len(rivals(result(QUICK, *trials))) == 3
    assert len(rivals(result(QUICK, *trials), shortened=True)) == 2


def test_figures_that_are_better_by_the_noise_only_are_no_reason() -> None:
    trials = (BEGAN, CHOSEN, tried(ubatch(2), "lost", 0.9, **figures(0.98, 0.2)))
    assert len(rivals(result(QUICK, *trials))) == 2


def test_a_start_that_stays_or_that_does_not_run_is_no_rival() -> None:
    stays = rivals(result(BASE, BEGAN))
    assert [(one.label, one.settings) for one in stays] == [("chosen", BASE)]
    broken = replace(result(QUICK, CHOSEN), gain=None)
    assert [one.label for one in rivals(broken)] == ["chosen"]


# Measuring


@dataclass
class FakeArena:
    """Four slots; a step costs `step` seconds and a fifth of it more for every stream, a prompt
    `reading` seconds each. Beyond the slots requests queue."""

    reading: float = 0.1
    steps: dict[Settings, float] = field(default_factory=lambda: {BASE: 0.012, QUICK: 0.01})
    fails: dict[tuple[Settings, int], str | Exception] = field(default_factory=dict)
    starts: dict[Settings, float] = field(default_factory=dict)
    alone: bool = False
    factors: list[float] = field(default_factory=list)
    disturbances: list[float] = field(default_factory=list)
    now: float = 0.0
    asked: list[tuple[Settings, int, int]] = field(default_factory=list)
    released: list[Settings] = field(default_factory=list)
    live: set[Settings] = field(default_factory=set)

    def clock(self) -> float:
        return self.now

    def start_seconds(self, settings: Settings) -> float:
        return 0.0 if settings in self.live else self.starts.get(settings, 0.0)

    async def release(self, settings: Settings) -> None:
        self.released.append(settings)

    async def run(self, settings: Settings, work: Work, *, part: int) -> tuple[LoadResult, float]:
        self.asked.append((settings, work.streams, part))
        self.now += self.start_seconds(settings)
        self.live = {settings} if self.alone else self.live | {settings}
        failure = self.fails.get((settings, work.streams))
        if isinstance(failure, Exception):
            raise failure
        at_once = min(work.streams, settings.parallel)
        waves = -(-work.streams // settings.parallel)
        factor = self.factors.pop(0) if self.factors else 1.0
        step = self.steps[settings] * (1 + at_once / 5) * factor
        length = work.scenario.output_tokens
        whole = self.reading + step * (length - 1)
        first = self.reading + (waves - 1) * whole
        count = work.streams * work.sessions_each
        self.now += waves * whole * work.sessions_each
        record = RequestRecord(
            session=0, turn=0, due=0.0, sent=0.0,
            piece_times=tuple(first + step * number for number in range(length)),
            ended=first + step * (length - 1), prompt_tokens=10, cached_tokens=0,
            output_tokens=length, error=failure,
        )  # fmt: skip
        records = tuple(replace(record, session=number) for number in range(count))
        disturbance = self.disturbances.pop(0) if self.disturbances else 0.0
        return LoadResult("users", 0, work.streams, None, 1.0, records), disturbance


WORK = Work(SCENARIOS["users"], 4, sessions_each=3)
TWO = (Rival("chosen", QUICK), Rival("start", BASE))


async def measured(arena: FakeArena, seconds: float = 1e6, **options: Any) -> Frontier:
    options = {"rivals": TWO, "work": WORK, **options}
    return await measure_frontier(arena, budget_seconds=seconds, clock=arena.clock, **options)


def test_numbers_of_users_go_to_twice_the_workloads() -> None:
    assert streams_of_frontier(1) == (1, 2)
    assert streams_of_frontier(2) == (2, 1, 4)
    assert streams_of_frontier(6) == (6, 1, 12, 2, 4)
    assert streams_of_frontier(8) == (8, 1, 16, 2, 4)


async def test_the_frontier_has_every_rival_with_every_number_of_users() -> None:
    arena = FakeArena()
    frontier = await measured(arena)
    assert [(one.streams, one.label) for one in frontier.points] == [
        (streams, label) for streams in (1, 2, 4, 8) for label in ("chosen", "start")
    ]
    assert frontier.left_out == ()
    assert [one.streams for one in frontier.points if one.best] == [1, 2, 4]
    assert {one.label for one in frontier.points if one.best} == {"chosen"}
    first = frontier.points[0]
    assert first.rounds == 3
    assert first.ttft_seconds == pytest.approx(0.1)
    assert first.time_per_token_seconds == pytest.approx(0.012)
    assert first.latency_seconds == pytest.approx(0.1 + 95 * 0.012)
    assert first.requests_per_second == pytest.approx(1 / first.latency_seconds)
    assert first.tokens_per_second == pytest.approx(96 / first.latency_seconds)


async def test_rivals_get_the_same_requests_in_turns_and_no_prompt_twice() -> None:
    arena = FakeArena()
    await measured(arena)
    rounds = [arena.asked[at : at + 2] for at in range(0, len(arena.asked), 2)]
    assert len(rounds) == 12
    for number, ((one, streams, part), (other, also, same)) in enumerate(rounds):
        assert (one, other) == ((QUICK, BASE) if number % 2 == 0 else (BASE, QUICK))
        assert (streams, part) == (also, same)
    assert len({turn[0][2] for turn in rounds}) == len(rounds)


async def test_the_median_leaves_a_burst_out() -> None:
    # Of the three rounds with 4 users the second one's first run takes three times as long.
    arena = FakeArena(factors=[1.0] * 8 + [3.0])
    frontier = await measured(arena)
    calm = await measured(FakeArena())
    assert [one.latency_seconds for one in frontier.points] == pytest.approx(
        [one.latency_seconds for one in calm.points]
    )


async def test_noise_hides_an_order() -> None:
    close = {BASE: 0.0103, QUICK: 0.01}
    still = await measured(FakeArena(steps=close), noise=0.0)
    assert still.tolerance.tokens_per_second < 0.06
    loud = await measured(FakeArena(steps={**close, BASE: 0.0112}), noise=0.1)
    assert loud.tolerance.tokens_per_second > 0.15
    assert {one.label for one in loud.points if one.best} == {"chosen", "start"}
    # Without a word from outside, by how much rounds differ.
    shaken = await measured(FakeArena(factors=[1.0, 1.2, 1.3, 1.0, 1.0, 1.1] * 4))
    assert shaken.tolerance.latency > still.tolerance.latency


@pytest.mark.parametrize("failure", ["it broke off", EngineError("it ended"), GatewayError("gone")])
async def test_who_fails_is_out_and_said_and_the_others_go_on(failure: str | Exception) -> None:
    arena = FakeArena(fails={(QUICK, 8): failure})
    frontier = await measured(arena)
    assert {one.label for one in frontier.points} == {"start"}
    assert {one.streams for one in frontier.points} == {1, 2, 4, 8}
    (out,) = frontier.left_out
    said = failure.sentence if isinstance(failure, EngineError | GatewayError) else failure
    assert out == LeftOut("chosen", f"with 8 users at once: {said}")
    assert arena.released == [QUICK]
    assert [asked for asked in arena.asked if asked[0] == QUICK][-1][1] == 8


async def test_without_anyone_who_runs_it_is_empty() -> None:
    arena = FakeArena(fails={(QUICK, 4): "no", (BASE, 4): "no"})
    frontier = await measured(arena)
    assert frontier.points == ()
    assert [one.label for one in frontier.left_out] == ["chosen", "start"]


async def test_it_ends_within_its_budget_and_with_whole_rounds() -> None:
    for seconds in (1.5, 3.0, 6.0, 10.0, 20.0, 40.0):
        arena = FakeArena()
        frontier = await measured(arena, seconds)
        assert arena.now <= seconds + 3.7  # before anything is known one run may last longer
        by_streams: dict[int, set[tuple[str, int]]] = {}
        for one in frontier.points:
            by_streams.setdefault(one.streams, set()).add((one.label, one.rounds))
        for cells in by_streams.values():
            assert {label for label, _ in cells} == {"chosen", "start"}
            assert len({rounds for _, rounds in cells}) == 1
        missing = {1, 2, 4, 8} - set(by_streams)
        assert len(frontier.left_out) == len(missing)
        assert all(one.sentence == NO_TIME for one in frontier.left_out)


async def test_what_requests_took_in_the_search_says_what_fits() -> None:
    known = tuple(replace(one, request_seconds=2.0) for one in TWO)
    none = FakeArena()
    frontier = await measured(none, 3.0, rivals=known)
    assert frontier.points == ()
    assert none.asked == []
    ample = FakeArena()
    await measured(ample, 1e3, rivals=known)
    some = FakeArena()
    tight = await measured(some, 60.0, rivals=known)
    assert ample.now > 2 * some.now  # longer parts
    assert {one.rounds for one in tight.points} == {3}


async def test_the_least_wanted_go_where_time_is_short() -> None:
    three = tuple(Rival(one.label, one.settings, 2.0) for one in (*TWO, Rival("MTP", MTP)))
    frontier = await measured(FakeArena(), 22.0, rivals=three)
    assert LeftOut("MTP", NO_TIME) in frontier.left_out
    assert {one.label for one in frontier.points} == {"chosen", "start"}


async def test_where_one_engine_has_room_a_visit_takes_all_numbers_of_users() -> None:
    arena = FakeArena(alone=True, starts={QUICK: 5.0, BASE: 5.0})
    frontier = await measured(arena)
    assert len(frontier.points) == 8
    changes = sum(
        one[0] != other[0] for one, other in zip(arena.asked, arena.asked[1:], strict=False)
    )
    assert changes <= 6


# For people


def test_the_table_fits_80_columns() -> None:
    points = marked(
        [
            point(1234.5, 123.4, "ik_llama.cpp-abc, ubatch 256, repack", 128),
            point(99.94, 0.98, "chosen", 1),
            point(9.9, 130.0, "start", 64),
        ],
        TENTH,
    )
    out = StringIO()
    left_out = (LeftOut("MTP depth 1", "with 8 users at once: the engine ended " + "x" * 60),)
    show_frontier(Frontier(points, TENTH, left_out), Console(file=out, width=80))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert [line.endswith("*") for line in lines[1:4]] == [True, True, False]
    assert "1,234" in lines[1]
    assert any(line.startswith("Not in it: MTP depth 1") for line in lines)


def test_nothing_measured_is_said() -> None:
    out = StringIO()
    show_frontier(Frontier((), left_out=(LeftOut("1 user", NO_TIME),)), Console(file=out, width=80))
    assert "could not be measured" in out.getvalue()
    assert NO_TIME in out.getvalue()


def test_json_has_points_tolerance_and_what_is_missing() -> None:
    frontier = Frontier((point(10, 1),), TENTH, (LeftOut("2 users at once", NO_TIME),))
    data = result(QUICK, CHOSEN).but(frontier=frontier).to_json()["frontier"]
    assert data["tolerance"] == {"tokens_per_second": 0.1, "latency": 0.1}
    assert data["left_out"] == [{"label": "2 users at once", "sentence": NO_TIME}]
    (only,) = data["points"]
    assert only["settings"] == BASE.to_json()
    assert (only["streams"], only["latency_seconds"], only["best"]) == (1, 1, False)
    assert result(QUICK, CHOSEN).to_json()["frontier"] is None


async def test_a_disturbed_round_runs_again_and_does_not_count() -> None:
    calm, hit = FakeArena(), FakeArena()
    alone = replace(WORK, streams=1)
    runs = 2 * len(streams_of_frontier(1))
    hit.disturbances = [0.0, 0.0, 0.0, 0.4]
    hit.factors = [1.0, 1.0, 1.0, 3.0]
    expected = await measured(calm, work=alone)
    found = await measured(hit, work=alone)
    assert len(hit.asked) == len(calm.asked) + 2
    assert found.points == expected.points
    assert hit.asked[2:4] != hit.asked[4:6]  # fresh requests
    assert len(calm.asked) == 3 * runs


async def test_a_machine_that_is_always_disturbed_is_measured_as_it_is() -> None:
    arena = FakeArena()
    arena.disturbances = [0.1 * (1 + number % 7) for number in range(1000)]
    found = await measured(arena)
    assert all(point.rounds == 3 for point in found.points)
