"""The search, on machines where the best settings are known."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from moestro.errors import MoestroError
from moestro.planning.settings import Settings
from moestro.tune.arena import Failure, Sample
from moestro.tune.axis import Axis, Value
from moestro.tune.candidate import Candidate, Space
from moestro.tune.journal import Event, Journal
from moestro.tune.result import TuneResult
from moestro.tune.search import START as START_LABEL
from moestro.tune.search import tune
from tests.tune.world import START, Effects, World, everything, sweep_seconds, world_space

REDUCED = ("ubatch", "threads", "flash_attention")


def effects(seed: int, **changes: Any) -> Effects:
    return replace(Effects.drawn(random.Random(seed)), **changes)


def search(world: World, space: Space, budget: float | None = None, **more: Any) -> TuneResult:
    """`budget` in seconds; None for 15 % of a sweep."""
    if budget is None:
        budget = 0.15 * sweep_seconds(world, space, 3)
    more.setdefault("clock", world.clock)
    return asyncio.run(tune(world, space, space.start, budget_seconds=budget, **more))


@pytest.mark.parametrize(
    ("machine", "least"),
    [
        ({"noise": 0.03}, 9),
        ({"noise": 0.03, "spikes": 0.03}, 8),
        ({"noise": 0.03, "room": 1, "drift": 0.15}, 8),
    ],
    ids=["3 % noise", "spikes", "one engine at a time"],
)
def test_near_the_best_in_a_fraction_of_a_sweep(machine: dict[str, Any], least: int) -> None:
    near = 0
    for seed in range(10):
        world = World(effects(seed), seed, **machine)
        space = world_space(world.effects, *REDUCED)
        result = search(world, space)
        best = max(map(world.truth, everything(space)))
        chosen, start = world.truth(result.settings), world.truth(START)
        near += chosen >= 0.97 * best
        assert chosen >= 0.98 * start
        assert world.now <= 0.15 * sweep_seconds(world, space, 3) + world.part_seconds
    assert near >= least


@pytest.mark.parametrize(
    ("seed", "machine"), [(16, {"noise": 0.03, "spikes": 0.03}), (30, {"noise": 0.1})]
)
def test_what_fresh_pairs_speak_against_does_not_stay_for_want_of_time(
    seed: int, machine: dict[str, Any]
) -> None:
    world = World(effects(seed), seed, **machine)
    result = search(world, world_space(world.effects, *REDUCED))
    assert world.truth(result.settings) >= world.truth(START)
    open_ones = [one for one in result.trials if "no time was left to see" in one.sentence]
    assert [one.outcome for one in open_ones] == ["no-difference"]


def test_a_machine_of_loud_noise_is_not_made_slower() -> None:
    for seed in range(6):
        world = World(effects(seed), seed, noise=0.1, spikes=0.05)
        result = search(world, world_space(world.effects, *REDUCED))
        assert world.truth(result.settings) >= 0.97 * world.truth(START)


def test_where_nothing_matters_the_start_stays() -> None:
    nothing = effects(
        1, engine={("embedded", True): (0.0, 0.0), ("embedded", False): (0.0, 0.0),
                   ("other", True): (0.0, 0.0), ("other", False): (0.0, 0.0)},
        no_flash=(0.0, 0.0), fewer_threads=0.0, fewer_threads_reading=0.0, ubatch_width=1e9,
        slots=0.0, ngram=0.0,
    )  # fmt: skip
    stayed = 0
    for seed in range(5):
        world = World(nothing, seed, noise=0.02)
        result = search(world, world_space(nothing, *REDUCED))
        stayed += result.settings == START
        assert result.gain is not None
        assert result.gain.low <= 1.0
        assert result.gain.expected < 1.06
    assert stayed >= 3


def test_no_part_is_run_twice_with_the_same_settings() -> None:
    """The engine would remember its prompts."""
    world = World(effects(3), 3)
    search(world, world_space(world.effects, *REDUCED))
    assert max(Counter((settings, part) for settings, part, _ in world.calls).values()) == 1


def test_everything_is_in_the_table() -> None:
    world = World(effects(2), 2)
    events: list[Event] = []
    result = search(world, world_space(world.effects, *REDUCED), on_event=events.append)
    rows = {tried.settings: tried for tried in result.trials}
    assert {settings for settings, _, _ in world.calls} <= set(rows)
    assert rows[START].outcome == "start"
    assert sum(tried.outcome == "chosen" for tried in result.trials) == 1
    for tried in result.trials:
        assert tried.sentence
        if tried.outcome in ("lost", "won", "chosen", "no-difference"):
            assert tried.ratio is not None
            assert tried.ratio.low <= tried.ratio.expected <= tried.ratio.high
            assert tried.pairs > 0
    moved = [reason for reason in result.reasons if reason.source == "measured"]
    assert moved
    assert any("faster than" in reason.because and "pairs" in reason.because for reason in moved)
    assert {"measured", "race", "confirming", "done"} <= {event.kind for event in events}
    written = json.loads(json.dumps(result.to_json()))
    assert {"gain", "settings", "trials", "spent_seconds", "reasons"} <= set(written)
    assert Settings.from_json(written["settings"]) == result.settings


def test_what_fails_is_recorded_and_not_tried_again() -> None:
    fails = {
        "engine=other": Failure("crashed", "It ended with SIGABRT.", 1.0),
        "ubatch=1024": Failure("out-of-memory", "There is no room for its buffers.", 1.0),
        "flash_attention=off": Failure("refused", "It needs flash attention.", 0.1),
    }
    world = World(effects(4), 4, fails=fails)
    result = search(world, world_space(world.effects, *REDUCED))
    outcomes = {tried.outcome for tried in result.trials}
    assert {"crashed", "refused"} <= outcomes
    assert result.settings.engine == "embedded"
    tries = Counter(settings for settings, _, _ in world.calls)
    for settings, count in tries.items():
        if world._failure(settings) is not None:
            assert count == 1


def test_a_start_that_does_not_run_is_an_error() -> None:
    world = World(effects(1), 1, fails={"engine=embedded": Failure("crashed", "It ended.")})
    with pytest.raises(MoestroError, match="It ended") as caught:
        search(world, world_space(world.effects))
    assert caught.value.code == "tune-start-failed"


class Flaky(World):
    """The start's engine ends once, in the middle of a race, or whenever it is asked from then."""

    ends_at = 4
    for_good = False

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        asked = sum(one == START for one, _, _ in self.calls) + 1
        if settings == START and (asked == self.ends_at or (self.for_good and asked > 4)):
            self.calls.append((settings, part, share))
            await self.release(settings)
            return Failure("crashed", "It ended by itself.")
        return await super().measure(settings, part=part, share=share)


def test_a_start_that_ends_once_starts_anew() -> None:
    world = Flaky(effects(1), 1)
    result = search(world, world_space(world.effects, *REDUCED))
    assert result.gain is not None
    assert world.truth(result.settings) > 1.05 * world.truth(START)
    assert {t.settings: t.outcome for t in result.trials}[START] == "start"


def test_a_start_that_ends_for_good_is_an_error() -> None:
    world = Flaky(effects(1), 1)
    world.for_good = True
    with pytest.raises(MoestroError, match="ended by itself") as caught:
        search(world, world_space(world.effects, *REDUCED))
    assert caught.value.code == "tune-start-failed"


class Disturbed(World):
    """A neighbour makes every third sample five times as long, and the processors' clock says so.
    It likes the start best, which so looks worse than everything."""

    told = True

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        found = await super().measure(settings, part=part, share=share)
        hit = settings == START and len(self.calls) % 3 == 0
        if not isinstance(found, Sample) or not hit:
            return found
        return replace(found, value=found.value / 5, disturbance=0.4 if self.told else 0.0)


def test_rounds_that_others_disturbed_do_not_count() -> None:
    gains = {}
    for told in (True, False):
        world = Disturbed(effects(4), 4)
        world.told = told
        result = search(world, world_space(world.effects, *REDUCED))
        truth = world.truth(result.settings) / world.truth(START)
        assert result.gain is not None
        gains[told] = result.gain.expected / truth
        assert (result.disturbed > 0) is told
    assert 0.9 < gains[True] < 1.1
    assert gains[False] > 1.2


class Late(World):
    """What is not the start ends from some moment on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.confirming = False

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        if self.confirming and settings != START:
            return Failure("crashed", "It ended on a failed check.")
        return await super().measure(settings, part=part, share=share)


def test_what_fails_when_it_is_confirmed_is_not_chosen_and_says_why() -> None:
    world = Late(effects(1), 1)

    def watch(event: Event) -> None:
        world.confirming |= event.kind == "confirming"

    result = search(world, world_space(world.effects, *REDUCED), on_event=watch)
    assert result.settings == START
    crashed = [tried for tried in result.trials if tried.outcome == "crashed"]
    assert crashed
    assert all(tried.sentence == "It ended on a failed check." for tried in crashed)
    assert "failed when run afresh" in result.reasons[0].because


def test_a_budget_too_short_for_one_pair_says_what_it_would_take() -> None:
    world = World(effects(1), 1)
    with pytest.raises(MoestroError, match=r"takes about \d+ s") as caught:
        search(world, world_space(world.effects), budget=8.0)
    assert caught.value.code == "tune-budget-too-short"
    assert "30" in (caught.value.hint or "") or "s or more" in (caught.value.hint or "")


@pytest.mark.parametrize("budget", [60.0, 100.0, 200.0])
def test_the_budget_holds_within_one_sample(budget: float) -> None:
    for seed in range(4):
        world = World(effects(seed), seed)
        result = search(world, world_space(world.effects), budget=budget)
        slowest = max(world.effects.seconds(settings) for settings, _, _ in world.calls)
        assert world.now <= budget + world.start_seconds_ + 1.5 * slowest * world.part_seconds
        assert result.spent_seconds == pytest.approx(world.now)
        if not result.complete:
            assert result.stopped == "the budget is spent"


@dataclass
class Dear(World):
    """An engine without repacking takes longer to start than any budget here."""

    def start_seconds(self, settings: Settings) -> float:
        return super().start_seconds(settings) if settings.repack else 500.0


@dataclass
class Hurried(World):
    """The first run of the fast engine takes most of the time, and shows `luck` times its speed."""

    luck: float = 1.0

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        found = await super().measure(settings, part=part, share=share)
        if settings == FAST.settings and sum(s == settings for s, _, _ in self.calls) == 1:
            self.now += 95.0
            assert isinstance(found, Sample)
            return replace(found, value=self.luck * found.value)
        return found


def ahead_by(ratio: float) -> Effects:
    """The other engine with repacking; nothing else of the engines differs."""
    log = math.log(ratio)
    return effects(1, engine={**SAME, ("other", True): (log, log)})


SAME = dict.fromkeys(effects(1).engine, (0.0, 0.0))
FAST = Candidate("the fast one", replace(START, engine="other"), "engine")
DEAR = Candidate("the dear one", replace(START, engine="other", repack=False), "engine")


@pytest.mark.parametrize("order", [(FAST, DEAR), (DEAR, FAST)])
def test_a_start_that_is_too_dear_is_nobody_elses_end(order: tuple[Candidate, ...]) -> None:
    world = Dear(ahead_by(2.0), 1, noise=0.02, start_seconds_=8.0)
    space = Space(START, order, ())
    result = search(world, space, 80.0)
    assert result.settings == FAST.settings
    assert result.confirmed
    assert not result.complete
    outcomes = {one.label: one.outcome for one in result.trials}
    assert outcomes == {START_LABEL: "start", FAST.label: "chosen", DEAR.label: "not-reached"}
    assert not any(settings == DEAR.settings for settings, _, _ in world.calls)


@pytest.mark.parametrize("order", [(FAST,), (DEAR, FAST)])
def test_a_budget_for_little_more_than_one_comparison_is_not_left_over(
    order: tuple[Candidate, ...],
) -> None:
    world = Dear(ahead_by(2.0), 1, noise=0.02, start_seconds_=8.0)
    result = search(world, Space(START, order, ()), 46.0)
    assert result.settings == FAST.settings
    assert result.gain is not None
    assert result.gain.low > 1
    assert result.spent_seconds <= 46.0


@pytest.mark.parametrize("ahead", [1.0, 2.0])
def test_a_twin_of_the_start_is_not_tried_once_the_start_is_far_behind(ahead: float) -> None:
    world = World(ahead_by(ahead), 1, noise=0.02)
    twin = Candidate("the twin", replace(START, engine="embedded", repack=False), "engine")
    space = Space(START, (twin, FAST), (), twins=frozenset({"embedded"}))
    result = search(world, space, 400.0)
    tried = any(settings == twin.settings for settings, _, _ in world.calls)
    assert tried == (ahead == 1.0)
    (row,) = (one for one in result.trials if one.label == twin.label)
    assert ("the same code as embedded" in row.sentence) == (ahead == 2.0)


@pytest.mark.parametrize(("log", "stays"), [(0.04, False), (-0.04, True), (-0.5, True)])
def test_of_a_twin_and_the_start_the_one_that_looks_better_is_kept(log: float, stays: bool) -> None:
    """Although 4 % can hardly be shown at this noise."""
    twin = Candidate("the twin", replace(START, engine="other"), "engine")
    space = Space(START, (twin,), (), twins=frozenset({"other"}))
    right = 0
    for seed in range(8):
        result = search(World(ahead_by(math.exp(log)), seed, noise=0.08), space, 300.0)
        right += (result.settings == START) == stays
        assert result.gain is not None
        assert result.confirmed
        if result.settings == twin.settings:
            assert result.gain.expected > 1
            (reason,) = (one for one in result.reasons if one.setting == "engine")
            assert "the twin" in reason.because
    assert right >= 7


def test_another_engine_that_is_no_twin_has_to_be_shown_better() -> None:
    stayed = 0
    for seed in range(8):
        world = World(ahead_by(1.04), seed, noise=0.08)
        result = search(world, Space(START, (FAST,), ()), 300.0)
        stayed += result.settings == START
    assert stayed >= 3


def test_an_engine_is_far_behind_also_where_the_slots_differ() -> None:
    """ik_llama.cpp runs with one slot where the others have four."""
    start = replace(START, parallel=4)
    world = World(ahead_by(2.2), 1, noise=0.02)
    bare = Candidate("without repacking", replace(start, repack=False), "engine")
    slots = Axis("slots", (Value.of("4 slots", parallel=4), Value.of("1 slot", parallel=1)))
    space = Space(start, (bare, FAST), (slots,))
    result = search(world, space, 400.0)
    assert result.settings == FAST.settings
    assert not any(settings == bare.settings for settings, _, _ in world.calls)
    (row,) = (one for one in result.trials if one.label == bare.label)
    assert "its engine is" in row.sentence


def test_what_one_pair_promises_is_put_to_the_test_when_time_ends_the_search() -> None:
    world = Hurried(ahead_by(2.0), 1, noise=0.02, start_seconds_=8.0)
    result = search(world, Space(START, (FAST,), ()), 170.0)
    assert result.settings == FAST.settings
    assert result.confirmed
    assert not result.complete
    (fast,) = (one for one in result.trials if one.label == FAST.label)
    assert fast.outcome == "chosen"
    assert fast.ratio is not None
    assert fast.ratio.low > 1.5


def test_what_one_pair_promised_by_chance_does_not_stay() -> None:
    world = Hurried(ahead_by(1.0), 1, noise=0.02, start_seconds_=8.0, luck=3.0)
    result = search(world, Space(START, (FAST,), ()), 170.0)
    assert result.settings == START
    (fast,) = (one for one in result.trials if one.label == FAST.label)
    assert fast.outcome in ("lost", "no-difference")


def test_what_the_space_excludes_never_runs() -> None:
    world = World(effects(5), 5)
    space = world_space(world.effects, *REDUCED)

    def why_not(candidate: Settings, incumbent: Settings) -> str | None:
        return "forecast: 2.3× slower" if candidate.threads == 1 else None

    result = search(world, replace(space, why_not=why_not))
    assert all(settings.threads == 2 for settings, _, _ in world.calls)
    excluded = [tried for tried in result.trials if tried.outcome == "excluded"]
    assert any("2.3×" in tried.sentence for tried in excluded)


class Stopped(World):
    """Someone presses Ctrl-C during the n-th sample."""

    stop_at = 0

    async def measure(self, settings: Settings, *, part: int, share: float) -> Sample | Failure:
        if len(self.calls) >= self.stop_at:
            raise asyncio.CancelledError
        return await super().measure(settings, part=part, share=share)


def test_what_was_learned_is_kept_when_it_is_stopped() -> None:
    tested = 0
    for stop_at in range(1, 60, 4):
        world = Stopped(effects(0), 0)
        world.stop_at = stop_at
        journal = Journal()
        space = world_space(world.effects, *REDUCED)
        try:
            search(world, space, journal=journal)
        except asyncio.CancelledError:
            tested += 1
            result = journal.result()
            assert not result.complete
            assert result.stopped == "it was stopped"
            json.dumps(result.to_json())
            assert world.truth(result.settings) >= 0.97 * world.truth(START)
            if result.settings != START and not result.confirmed:
                assert result.gain is not None
                assert result.gain.expected > 1
    assert tested > 3
