"""Seconds of a step out of what streams wrote."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moestro.errors import EngineError
from moestro.load import LoadResult, RequestRecord
from moestro.planning.settings import Settings
from moestro.tune.depth_run import measure_curve, seconds_per_step


def record(
    first: float, step: float, steps: int, *, kept: int = 1, error: str | None = None
) -> RequestRecord:
    """A stream that writes `kept` tokens every `step` seconds; those of a step arrive together."""
    times = tuple(first + step * number for number in range(steps) for _ in range(kept))
    return RequestRecord(
        session=0, turn=0, due=0.0, sent=0.0, piece_times=times, ended=times[-1],
        prompt_tokens=10, cached_tokens=0, output_tokens=len(times),
        drafted=None if kept == 1 else steps * (kept - 1),
        accepted=None if kept == 1 else steps * (kept - 1), error=error,
    )  # fmt: skip


def test_without_drafts_a_step_is_a_token() -> None:
    assert seconds_per_step([record(1.0, 0.1, 50)]) == pytest.approx([0.1])


def test_accepted_drafts_make_no_steps() -> None:
    assert seconds_per_step([record(1.0, 0.1, 50, kept=3)]) == pytest.approx([0.1])


def test_only_what_all_streams_wrote_together_counts() -> None:
    # The second one begins late: until then the first one's steps are shorter.
    early = record(0.0, 0.1, 101)
    slow = replace(
        early, piece_times=(*early.piece_times[:51], *(5.0 + 0.2 * n for n in range(1, 51)))
    )
    late = record(5.0, 0.2, 51)
    assert seconds_per_step([slow, late]) == pytest.approx([0.2, 0.2])


def test_what_failed_or_is_too_short_says_nothing() -> None:
    assert seconds_per_step([record(0.0, 0.1, 50, error="gone"), record(0.0, 0.1, 1)]) == []


class FakeArena:
    """Steps cost 10 ms and 4 ms more for each drafted token; depth 3 does not run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[int, int]] = []
        self.disturbances: list[float] = []

    def start_seconds(self, settings: Settings) -> float:
        return 1.0

    async def run(self, settings: Settings, work: object, **_: object) -> tuple[LoadResult, float]:
        streams = work.streams  # type: ignore[attr-defined]
        self.asked.append((settings.mtp_depth, streams))
        self.now += 5.0
        if settings.mtp_depth == 3:
            raise EngineError("The engine refuses.")
        disturbance = self.disturbances.pop(0) if self.disturbances else 0.0
        step = (0.01 + 0.004 * settings.mtp_depth) * (1 + disturbance)
        records = tuple(record(0.0, step, 30) for _ in range(streams))
        return LoadResult("chat", 0, streams, None, 1.0, records), disturbance


BASE = Settings(context=512, parallel=2, threads=1)


async def test_the_curve_has_every_depth_that_runs() -> None:
    arena = FakeArena()
    curve = await measure_curve(arena, BASE, 1e6, clock=lambda: arena.now)  # type: ignore[arg-type]
    assert curve is not None
    assert curve.depths == (0, 1, 2, 4)
    assert curve.streams == (1, 2)
    step = curve.step(2, 1)
    assert step is not None
    assert step.seconds == pytest.approx(0.018)
    assert step.low < step.seconds < step.high
    assert arena.asked.count((3, 1)) == 1


async def test_a_curve_ends_with_its_time() -> None:
    arena = FakeArena()
    curve = await measure_curve(arena, BASE, 11.0, clock=lambda: arena.now)  # type: ignore[arg-type]
    assert curve is not None
    assert arena.asked == [(0, 1), (0, 2)]
    none = await measure_curve(arena, BASE, 0.5, clock=lambda: arena.now)  # type: ignore[arg-type]
    assert none is None


async def test_what_was_disturbed_runs_once_more() -> None:
    arena = FakeArena()
    arena.disturbances = [0.0, 0.5, 0.0, 0.0, 0.5, 0.5]
    curve = await measure_curve(arena, BASE, 1e6, clock=lambda: arena.now)  # type: ignore[arg-type]
    assert curve is not None
    assert arena.asked[:7] == [(0, 1), (0, 2), (0, 2), (1, 1), (1, 2), (1, 2), (2, 1)]
    clean = curve.step(0, 2)
    assert clean is not None
    assert clean.seconds == pytest.approx(0.01)
    kept = curve.step(1, 2)  # disturbed both times: then it counts, and its range says so
    assert kept is not None
    assert kept.high - kept.low > 0.1 * kept.seconds
