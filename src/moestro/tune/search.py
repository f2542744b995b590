"""The search: from the starting settings to better ones, by races, within a budget."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from moestro.errors import MoestroError
from moestro.planning.settings import Settings
from moestro.tune.arena import Arena, Failure, Sample
from moestro.tune.axes import ENGINE
from moestro.tune.axis import Axis, Value
from moestro.tune.belief import Beliefs, value_candidate
from moestro.tune.candidate import Candidate, Space
from moestro.tune.journal import Journal, OnEvent
from moestro.tune.meter import Meter, OutOfBudget
from moestro.tune.race import BaseFailed, Race, Rules, Rung, Verdict
from moestro.tune.result import TuneResult
from moestro.tune.statistics import Noise, Pair, Ratio, estimate
from moestro.tune.wording import settings_changed

START = "the starting settings"
SHORT = 0.25
"""The share of a part that the first look takes."""

WORTH_A_LOOK = 0.25
"""Part of the least gain worth having that a closer look has to promise."""

MOST_CLOSER_LOOKS = 100
CONFIRM_LEAST = 3
CONFIRM_LEAST_TIGHT = 2
CONFIRM_SHARE_TIGHT = 0.5
TIGHT = 25
"""With fewer whole parts than this in the budget only short ones choose, and fewer and shorter
ones confirm."""

TIGHT_RUNGS = (Rung(0.25, 2), Rung(0.25, 2))
MARGIN = 1.3
"""On what the confirmation will cost: it runs whole parts, and mostly short ones are known."""

HOPELESSLY_BEHIND = 1.5
"""An engine that is this much slower is not looked at again: that is more than repacking, or fewer
slots, were ever seen to bring."""

TWIN_BEHIND = 1.1
"""The same for an engine that is the code of another one, compiled for the same instructions."""

CONFIRM_MOST = 12
AMPLE = 0.1
"""Of the budget, for confirmations that need more than the least."""

HOPELESS_PAIRS = 6
"""Fresh pairs after which a winner that looks worse makes room for an earlier one."""

RETREATS = 2
"""How often an incumbent that failed its confirmation is followed by an earlier one, half of the
way back: what was found first had the larger effect, and later ones may have been chance."""

BETTER = 0.8
"""How sure it has to be, in fresh pairs, that the winner is better than the start. A gain that is
not there costs nothing, so this is not strict; a loss of 2 % would show."""


async def tune(
    arena: Arena,
    space: Space,
    start: Settings,
    *,
    budget_seconds: float,
    objective: str = "requests per second",
    on_event: OnEvent | None = None,
    clock: Callable[[], float] = time.monotonic,
    journal: Journal | None = None,
    rules: Rules | None = None,
    prompt_share: float | None = None,
    began: float | None = None,
    held_back_seconds: float = 0.0,
) -> TuneResult:
    """Settings that beat `start` on the arena's workload, with the evidence.

    `objective` is what the arena's values are called. `prompt_share` is the part of the workload's
    time that reading takes, where that is known better than by forecast: it decides what is looked
    at first. The budget counts from `began` (of `clock`; None: from now), and `held_back_seconds`
    of it are for what the caller does afterwards. A `journal` of the caller's holds what was
    learned when this is cancelled; `on_event` serves where none is given.

    Raises:
        MoestroError: the starting settings do not run (`tune-start-failed`), or the budget is too
            short for one comparison (`tune-budget-too-short`, with what it would need).
    """
    journal = journal if journal is not None else Journal(on_event)
    meter = Meter(
        arena, journal, budget_seconds, clock, began=began, held_back_seconds=held_back_seconds
    )
    share = space.prompt_share if prompt_share is None else prompt_share
    search = _Search(meter, journal, space, start, objective, rules, share)
    try:
        await search.run()
    except asyncio.CancelledError:
        journal.stopped = "it was stopped"
        journal.spent_seconds = meter.spent_seconds
        raise
    journal.spent_seconds = meter.spent_seconds
    result = journal.result()
    journal.tell("done", "the search has ended", result.settings)
    return result


class _Search:
    def __init__(
        self,
        meter: Meter,
        journal: Journal,
        space: Space,
        start: Settings,
        objective: str,
        rules: Rules | None,
        prompt_share: float | None,
    ) -> None:
        self.meter = meter
        self.journal = journal
        self.space = space
        self.start = Candidate(START, start, "start")
        self.incumbent = self.start
        self.objective = objective
        self.given_rules = rules
        self.rules = rules or Rules()
        self.confirm_least = CONFIRM_LEAST
        self.confirm_share = 1.0
        self.prompt_share = 0.5 if prompt_share is None else min(max(prompt_share, 0.0), 1.0)
        self.near: dict[tuple[str, ...], tuple[Candidate, Candidate, Ratio]] = {}
        self.beliefs = Beliefs(space)
        self.rival_seen = False
        self.start_ended = False
        self.out_of_budget = False
        self.unpaid: set[Settings] = set()
        """Those that there was no time to start."""

        self.fresh: list[Pair] = []
        """Of the confirmation that runs or ran last."""

    async def run(self) -> None:
        self.journal.began(self.start, self.objective, self.space.excluded)
        await self._first()
        await self._all_axes()
        await self._confirm()
        await self._twin()
        self.journal.stopped = "the budget is spent" if self.out_of_budget else None

    # The first look

    async def _first(self) -> None:
        found = await self.meter.sample(self.start, self.meter.next_part(), SHORT, forced=True)
        if isinstance(found, Failure):
            raise MoestroError(
                f"The starting settings do not run: {found.sentence.rstrip('.')}.",
                hint="Tuning compares with them: change what you fixed, or the plan.",
                code="tune-start-failed",
            )
        self._check_budget()

    def _check_budget(self) -> None:
        """One comparison: another engine started, and one full pair."""
        settings = self.incumbent.settings
        full = self.meter.full_seconds(settings)
        start = self.meter.starting_seconds(settings)
        later = self.meter.held_back_seconds
        needed = self.meter.spent_seconds + later + start + 2 * full
        if needed > self.meter.budget_seconds:
            raise MoestroError(
                f"A budget of {_seconds(self.meter.budget_seconds)} is too short for one "
                f"comparison, which takes about {_seconds(needed)}: {_seconds(start)} to start an "
                f"engine, {_seconds(full)} for one run of the workload.",
                hint=f"Give it {_seconds(3 * needed)} or more, or a lighter workload.",
                code="tune-budget-too-short",
            )
        if full * TIGHT > self.meter.budget_seconds:
            self.rules = self.given_rules or replace(self.rules, rungs=TIGHT_RUNGS)
            self.confirm_least, self.confirm_share = CONFIRM_LEAST_TIGHT, CONFIRM_SHARE_TIGHT
        self._reserve()

    def _reserve(self) -> None:
        """For the confirmation: both engines started, the least full pairs; half of it all at most.
        Engines that run now may have ended by then. Where pairs are cheap there is room for as many
        as a noisy machine needs, of those that follow a refuted one too."""
        mine, start = self.incumbent.settings, self.start.settings
        starting = MARGIN * sum(map(self.meter.starting_seconds, (mine, start)))
        pair = MARGIN * self.confirm_share * sum(map(self.meter.full_seconds, (mine, start)))
        searching = self.meter.budget_seconds - self.meter.held_back_seconds
        least = min(starting + self.confirm_least * pair, searching / 2)
        ample = (1 + RETREATS) * (starting + CONFIRM_MOST * pair)
        self.meter.reserve_seconds = max(least, min(ample, searching * AMPLE))

    # The axes

    def _in_order(self) -> list[Axis]:
        return sorted(self.space.axes, key=lambda axis: -axis.promise(self.prompt_share))

    async def _all_axes(self) -> None:
        try:
            await self._engines()
            for axis in self._in_order():
                if axis.promise(self.prompt_share) < self.rules.least_gain:
                    self.journal.skipped(axis.name, "it has little to gain with this workload")
                else:
                    await self._look(axis)
            await self._combination()
            await self._closer()
            self.out_of_budget = bool(self.unpaid)
        except OutOfBudget:
            self.out_of_budget = True
        if self.out_of_budget and self.incumbent is self.start and not self.near:
            await self._last_chance()

    async def _last_chance(self) -> None:
        """Nothing speaks for anybody yet, so there is nothing to confirm: what was kept for that
        goes into one race with the first of the opening that it pays for."""
        self.meter.reserve_seconds = 0.0
        waiting = (
            one
            for one in self.space.opening
            if self.meter.cost(one.settings, SHORT) < self.meter.left_seconds
            and not self._speaks_against(one)
        )
        rules = replace(self.rules, rungs=(Rung(SHORT, 2), Rung(SHORT, 2)))
        try:
            await self._race(list(islice(waiting, 1)), rules)
        except OutOfBudget:
            return

    async def _engines(self) -> None:
        """One arm of each engine first; those that crashed get a second chance; then the other
        arms, except of engines that are far behind. What is the start's code again comes last."""
        firsts: dict[str, Candidate] = {}
        mine = {self.start.settings.engine, *self.space.twins}
        for candidate in self.space.opening:
            if candidate.settings.engine not in mine:
                firsts.setdefault(candidate.settings.engine, candidate)
        for wave in (firsts.values(), self._others(firsts.values())):
            await self._race(wave)
            crashed = [one for one in self.space.opening if self.journal.crashed(one.settings)]
            await self._race([one for each in crashed for one in self.space.gentler(each)])

    def _others(self, firsts: Iterable[Candidate]) -> Iterator[Candidate]:
        """Lazily: who is far behind is known after the first race."""
        ran = tuple(firsts)
        twins = self.space.twins
        for candidate in sorted(self.space.opening, key=lambda one: one.settings.engine in twins):
            if candidate in ran:
                continue
            engine, most, said = candidate.settings.engine, HOPELESSLY_BEHIND, "its engine"
            if engine in twins:
                engine, most = self.start.settings.engine, TWIN_BEHIND
                said = f"the same code as {engine}, which"
            behind = self.beliefs.behind(engine, self.incumbent.settings)
            if behind is not None and behind > most:
                self.journal.left_out(candidate, f"{said} is {behind:.1f}× slower or worse")
            else:
                yield candidate

    async def _look(self, axis: Axis) -> None:
        """All values against the incumbent; of ordered ones the neighbours first."""
        if not axis.applies(self.incumbent.settings):
            self.journal.skipped(axis.name, "the chosen engine or settings leave no question")
            return
        values = _first_wave(axis, self.incumbent.settings)
        tried: set[Value] = set()
        rivals = self._rivals(axis)
        while values:
            tried |= set(values)
            verdict = await self._race([*self._candidates(axis, values), *rivals])
            rivals = []
            gained = verdict is not None and (verdict.winner is not None or bool(verdict.near))
            values = _next_wave(axis, self.incumbent.settings, tried, gained)

    def _rivals(self, axis: Axis) -> list[Candidate]:
        """The first axis whose best value depends on the engine is looked at with the second engine
        too: which engine wins may hang on it."""
        if self.rival_seen or ENGINE not in axis.after:
            return []
        rival = self.beliefs.rival(self.incumbent.settings)
        self.rival_seen = True
        if rival is None or not axis.applies(rival.settings):
            return []
        values = [v for v in _first_wave(axis, rival.settings) if not v.holds(rival.settings)]
        found = [value_candidate(self.space, axis, value, rival.settings) for value in values]
        return [Candidate(f"{rival.label}, {one.label}", one.settings, ENGINE) for one in found]

    def _candidates(self, axis: Axis, values: Iterable[Value]) -> list[Candidate]:
        base = self.incumbent.settings
        return [
            value_candidate(self.space, axis, value, base)
            for value in values
            if not value.holds(base)
        ]

    def _speaks_against(self, candidate: Candidate, *, again: bool = False) -> bool:
        if not again and self.journal.known(candidate.settings):
            return True
        because = self.space.why_not(candidate.settings, self.incumbent.settings)
        if because is not None:
            self.journal.left_out(candidate, because)
        return because is not None

    async def _race(
        self, candidates: Iterable[Candidate], rules: Rules | None = None
    ) -> Verdict | None:
        """Races what nothing speaks against; the winner is the new incumbent. None without any."""
        seen: dict[Settings, Candidate] = {}
        for candidate in candidates:
            if candidate.settings not in seen and not self._speaks_against(candidate):
                seen[candidate.settings] = candidate
        waiting, heats, repeated = list(seen.values()), [], False
        for candidate in waiting:
            self.journal.waiting(candidate)
        while waiting:
            heat = waiting[: self.rules.most_at_once]
            waiting = waiting[len(heat) :]
            verdict = await self._heat(heat, rules or self.rules)
            if verdict is not None:
                heats.append(verdict)
            elif not repeated:  # the incumbent failed and another one took its place
                repeated, waiting = True, [*heat, *waiting]
        if not heats:
            return None
        return replace(
            heats[-1],
            winner=next((one.winner for one in reversed(heats) if one.winner), None),
            near=tuple(near for one in heats for near in one.near),
            ratios=tuple(ratio for one in heats for ratio in one.ratios),
        )

    async def _heat(self, heat: Sequence[Candidate], rules: Rules) -> Verdict | None:
        named = ", ".join(candidate.label for candidate in heat)
        self.journal.tell("race", f"{named}: against {self.incumbent.label}")
        race = Race(self.meter, self.journal, self.incumbent, heat, rules)
        before = self.incumbent
        try:
            verdict = await race.run()
        except BaseFailed as failed:
            await self._fall_back(failed)
            return None
        except asyncio.CancelledError:  # what it knows by then counts
            verdict = race.verdict(unfinished=True)
            if verdict.winner is not None and verdict.ratio is not None:
                self._adopt(verdict.winner, before, verdict.ratio)
            raise
        for candidate, ratio in verdict.near:
            names = settings_changed(before.settings, candidate.settings)
            self.near[names] = (candidate, before, ratio)
        if verdict.winner is not None and verdict.ratio is not None:
            self._adopt(verdict.winner, before, verdict.ratio)
            if before is not self.start:
                await self.meter.release(before)
        for candidate, ratio in verdict.ratios:
            self.beliefs.learn(candidate, self.incumbent.settings, ratio)
        self.unpaid.update(one.settings for one in verdict.unpaid)
        if verdict.unfinished:
            raise OutOfBudget
        return verdict

    def _adopt(self, winner: Candidate, before: Candidate, ratio: Ratio) -> None:
        self.incumbent = winner
        self.journal.adopted(winner, before, ratio)
        moved = set(settings_changed(before.settings, winner.settings))
        self.near = {names: one for names, one in self.near.items() if not moved & set(names)}
        self._reserve()

    async def _fall_back(self, failed: BaseFailed) -> None:
        """The incumbent ended: the one before it takes its place again."""
        await self.meter.release(failed.candidate)
        before = self.journal.retreated()
        if before is not None:
            self.incumbent = before
        elif self.start_ended:  # once may have been chance: its engine starts anew
            raise MoestroError(
                f"The starting settings ran, and then no more: "
                f"{failed.failure.sentence.rstrip('.')}.",
                hint="It happened twice: look for what the machine lacks, or change the plan.",
                code="tune-start-failed",
            )
        else:
            self.start_ended = True

    # A closer look

    async def _closer(self) -> None:
        """What may still be better than the incumbent, as far as it is known: those that promise
        most first, until the rest promises less than is worth having."""
        least = math.log1p(self.rules.least_gain) * WORTH_A_LOOK
        for _ in range(MOST_CLOSER_LOOKS):
            options = self.beliefs.options(self.incumbent.settings)
            options = [
                option
                for option in options
                if option.promise >= least
                and not self.journal.failed_with(option.candidate.settings)
                and option.candidate.settings not in self.unpaid
                and not self._speaks_against(option.candidate, again=True)
            ][: self.rules.most_at_once]
            if not options:
                return
            fresh = any(not option.direct for option in options)
            rungs = (Rung(SHORT, 2), Rung(1.0, 2)) if fresh else (Rung(1.0, 2),)
            heat = [option.candidate for option in options]
            await self._heat(heat, replace(self.rules, rungs=rungs))

    async def _combination(self) -> None:
        """Single changes that may each be a little better, all at once."""
        settings, labels = self.incumbent.settings, []
        for names, (candidate, _, _) in sorted(self.near.items(), key=lambda item: -item[1][2].log):
            if "engine" in names or any(
                getattr(settings, n) != getattr(self.incumbent.settings, n) for n in names
            ):
                continue
            settings = replace(settings, **{n: getattr(candidate.settings, n) for n in names})
            labels.append(candidate.label)
        if settings != self.incumbent.settings:
            together = Candidate(" and ".join(labels), settings, "combination")
            rungs = (Rung(0.5, 2), Rung(1.0, 3))
            await self._race([together], replace(self.rules, rungs=rungs))

    # The confirmation

    async def _confirm(self) -> None:
        """Fresh pairs of the winner and the start, which nothing was chosen by. Where no time is
        left for them the winner stays, unless fresh pairs spoke against it, or against the one that
        it stands in for."""
        if self.journal.start_fails is not None:
            return
        promoted = self._promote()
        self.meter.reserve_seconds = 0.0
        for retreats in range(1 + RETREATS):
            if self.incumbent is self.start:
                return
            said = f"{self.incumbent.label}: once more beside {self.start.label}, on fresh requests"
            self.journal.tell("confirming", said, self.incumbent.settings)
            ratio = await self._pairs_with_start()
            if isinstance(ratio, Failure):
                self.journal.failed_late(self.incumbent, ratio)
                self._retreat()
                continue
            if ratio is None or (ratio.doubtful and ratio.low(BETTER) > 1):
                if promoted or retreats or any(pair.log < 0 for pair in self.fresh):
                    self.journal.left_open(self.incumbent)
                    break
                return  # too little was left: the result says that it is not confirmed
            if ratio.low(BETTER) > 1:
                self.journal.confirm(self.incumbent, ratio)
                return
            self.journal.refuted(self.incumbent, ratio)
            self._retreat()
        while self.journal.retreated() is not None:
            pass
        self.incumbent = self.start

    def _promote(self) -> bool:
        """Where the budget ended before anything was sure, what promises most is put to the test:
        fresh pairs are as good a proof as a race. Whether there is such a one."""
        if self.incumbent is not self.start or not self.out_of_budget:
            return False
        promising = [
            (ratio.log - ratio.error, candidate, ratio)
            for candidate, before, ratio in self.near.values()
            if before is self.start and not self.journal.failed_with(candidate.settings)
        ]
        if promising:
            _, candidate, ratio = max(promising, key=lambda one: one[0])
            self._adopt(candidate, self.start, ratio)
        return bool(promising)

    def _retreat(self) -> None:
        for _ in range((len(self.journal.path) + 1) // 2):
            self.incumbent = self.journal.retreated() or self.start

    async def _twin(self) -> None:
        """Where the start stays: its own code, compiled on this machine, is taken if it looks
        better, however little. That rival was named in advance, not picked from many, so no luck of
        choosing is in what was measured, and it costs nothing else."""
        start = self.start.settings
        twin = next(
            (
                one
                for one in self.space.opening
                if one.settings.engine in self.space.twins
                and one.settings == replace(start, engine=one.settings.engine)
                and not self.journal.failed_with(one.settings)
                and not self._speaks_against(one, again=True)
            ),
            None,
        )
        if self.incumbent is not self.start or self.journal.start_fails is not None or twin is None:
            return
        if len(self.journal.pairs(twin.settings, start)) < CONFIRM_MOST:
            self.incumbent = twin
            await self._pairs_with_start()
            self.incumbent = self.start
        ratio = estimate(self.journal.pairs(twin.settings, start), self.journal.noise)
        failed = self.journal.failed_with(twin.settings) or self.journal.start_fails
        if failed is None and ratio is not None and not ratio.doubtful and ratio.log > 0:
            self._adopt(twin, self.start, ratio)
            self.journal.confirm(twin, ratio)

    async def _pairs_with_start(self) -> Ratio | Failure | None:
        self.fresh = pairs = []
        noise: Noise = self.journal.noise
        found: Ratio | None = None
        again = self.confirm_least
        try:
            for number in range(CONFIRM_MOST):
                part = self.meter.next_part()
                order = [self.start, self.incumbent]
                values: dict[Candidate, float] = {}
                samples: list[Sample] = []
                for candidate in order if number % 2 == 0 else reversed(order):
                    sample = await self.meter.sample(candidate, part, self.confirm_share)
                    if isinstance(sample, Failure):
                        return sample if candidate is self.incumbent else None
                    values[candidate] = math.log(sample.value)
                    samples.append(sample)
                if again > 0 and self.meter.disturbed(samples):
                    again -= 1
                    self.journal.disturbed += 1
                    continue
                gain = values[self.incumbent] - values[self.start]
                pairs.append(Pair(gain, self.confirm_share))
                noise.learn(("confirmation", self.incumbent), pairs)
                found = estimate(pairs, noise)
                if len(pairs) >= self.confirm_least and found is not None and _enough(found):
                    break
        except OutOfBudget:
            self.out_of_budget = True
        finally:
            self.journal.keep_pairs(self.incumbent.settings, self.start.settings, pairs)
        return found if found is not None and found.pairs > 1 else None


def _enough(ratio: Ratio) -> bool:
    """A clear loss, one that some pairs leave no hope for, or a gain known to a quarter of itself
    or to 3 %."""
    if ratio.doubtful:
        return False
    if ratio.high(0.9) < 1 or (ratio.log < 0 and ratio.pairs >= HOPELESS_PAIRS):
        return True
    half = (ratio.high(0.975) - ratio.low(0.975)) / 2
    return ratio.low(0.9) > 1 and half <= max(0.03, (ratio.expected - 1) / 4)


def _first_wave(axis: Axis, settings: Settings) -> tuple[Value, ...]:
    if axis.first:
        return tuple(value for value in axis.values if value.label in axis.first)
    return _neighbours(axis, settings) if axis.ordered else axis.values


def _next_wave(
    axis: Axis, settings: Settings, tried: set[Value], gained: bool
) -> tuple[Value, ...]:
    """Where the best value so far leads to; nothing where it is where it was."""
    if not gained:
        return ()
    values = _neighbours(axis, settings) if axis.ordered else axis.values
    return tuple(value for value in values if value not in tried and not value.holds(settings))


def _neighbours(axis: Axis, settings: Settings) -> tuple[Value, ...]:
    """The values beside the one that settings have; all of them where they have none."""
    place = axis.place(settings)
    if place is None:
        return axis.values
    return tuple(axis.values[at] for at in (place - 1, place + 1) if 0 <= at < len(axis.values))


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} min"
