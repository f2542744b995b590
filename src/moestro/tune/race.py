"""Challengers against the incumbent, in rounds of the same work.

In each round everyone still in the race runs the same part of the workload, in an order that is
turned round from one round to the next, so that what drifts with time cancels. Only ratios within
a round count. Rounds grow longer ("rungs"), fewer take part in each (successive halving: Jamieson
and Talwalkar 2016), and who is clearly better than the leader takes its place at once: the rest
then has to beat that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.tune.arena import Failure, Sample
from moestro.tune.candidate import Candidate
from moestro.tune.journal import Journal
from moestro.tune.meter import Meter, OutOfBudget
from moestro.tune.result import TriedOutcome
from moestro.tune.statistics import Pair, Ratio, estimate


@dataclass(frozen=True, slots=True)
class Rung:
    share: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Rules:
    """`least_gain` is the least that is worth having. `repeats` are rounds added to a rung while
    pairs disagree. A challenger that leads at the end needs to be better with `enough` confidence;
    one that takes the lead before needs `sure`. `most_at_once` is how many challengers run beside
    the incumbent: of more there are heats, since each has an engine of its own in memory."""

    rungs: tuple[Rung, ...] = (Rung(0.25, 2), Rung(0.5, 2), Rung(1.0, 3))
    least_gain: float = 0.01
    repeats: int = 2
    sure: float = 0.95
    enough: float = 0.8
    most_at_once: int = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ratio` is the winner's to the base; both None where the base stays. `near` are those that
    may be a little better than the base. `ratios` are those of all others, the base among them, to
    whoever leads in the end. `unpaid` could not take part, for want of time to start them;
    `unfinished`: the budget ended it."""

    winner: Candidate | None
    ratio: Ratio | None
    near: tuple[tuple[Candidate, Ratio], ...]
    ratios: tuple[tuple[Candidate, Ratio], ...]
    unpaid: tuple[Candidate, ...]
    unfinished: bool


class BaseFailed(Exception):
    """The incumbent itself does not run any more. Stays inside this room."""

    def __init__(self, candidate: Candidate, failure: Failure) -> None:
        super().__init__(failure.sentence)
        self.candidate = candidate
        self.failure = failure


class Race:
    """One race; `run` it once."""

    def __init__(
        self,
        meter: Meter,
        journal: Journal,
        base: Candidate,
        challengers: Sequence[Candidate],
        rules: Rules,
    ) -> None:
        self._meter = meter
        self._journal = journal
        self._rules = rules
        self._base = base
        self._everyone = (base, *challengers)
        self._alive = [base, *challengers]
        self._leader = base
        self._rounds: list[tuple[float, dict[Candidate, float]]] = []
        self._forward = True
        self._again = 0
        self._unpaid: list[Candidate] = []
        self._over: list[Candidate] = []
        """Out of the race, with engines that may end."""

    async def run(self) -> Verdict:
        """Raises BaseFailed."""
        for challenger in self._everyone[1:]:
            self._journal.waiting(challenger)
        unfinished = False
        self._leave_out_the_dear()
        try:
            for number, rung in enumerate(self._rules.rungs):
                await self._climb(rung)
                if number == 0:
                    self._halve()
                else:
                    self._thin()
                await self._release()
                if len(self._alive) == 1:
                    break
        except OutOfBudget:
            unfinished = True
        verdict = self.verdict(unfinished=unfinished)
        await self._release()
        return verdict

    def compare(self, one: Candidate, other: Candidate) -> Ratio | None:
        """From the rounds in which both ran, earlier races included."""
        before = self._journal.pairs(one.settings, other.settings)
        return estimate([*before, *self._pairs(one, other)], self._journal.noise)

    async def _climb(self, rung: Rung) -> None:
        left, repeats = rung.rounds, self._rules.repeats
        self._again = rung.rounds
        while left > 0 and len(self._alive) > 1:
            at_once = left if self._meter.one_at_a_time else 1
            left -= await self._round(rung.share, at_once)
            self._judge()
            await self._release()
            if left <= 0 and repeats > 0 and self._disagreement():
                left, repeats = 1, repeats - 1

    async def _round(self, share: float, parts: int) -> int:
        """How many rounds of that many count. Those in which somebody else wanted the processors
        do not, as long as there may be others in their place."""
        numbers = [self._meter.next_part() for _ in range(parts)]
        values: list[dict[Candidate, float]] = [{} for _ in numbers]
        samples: list[list[Sample]] = [[] for _ in numbers]
        self._rounds += [(share, row) for row in values]
        order = [one for one in self._everyone if one in self._alive]
        for candidate in order if self._forward else reversed(order):
            for number, row, seen in zip(numbers, values, samples, strict=True):
                found = await self._meter.sample(candidate, number, share)
                if isinstance(found, Failure):
                    await self._failed(candidate, found)
                    break
                row[candidate] = math.log(found.value)
                seen.append(found)
        self._forward = not self._forward
        return parts - sum(
            self._thrown_away(row)
            for row, seen in zip(values, samples, strict=True)
            if self._meter.disturbed(seen)
        )

    def _leave_out_the_dear(self) -> None:
        """Before the first round: those whose first try cannot be paid do not take part. Starting
        one engine may cost more than all that the others still need."""
        share = self._rules.rungs[0].share
        left = self._meter.left_seconds
        for candidate in self._everyone:
            cost = self._meter.cost(candidate.settings, share)
            if candidate is not self._base and cost > left:
                self._alive.remove(candidate)
                self._unpaid.append(candidate)
            else:
                left -= cost

    def _thrown_away(self, row: dict[Candidate, float]) -> bool:
        if self._again <= 0:
            return False
        self._again -= 1
        self._rounds = [(share, one) for share, one in self._rounds if one is not row]
        self._journal.disturbed += 1
        return True

    async def _failed(self, candidate: Candidate, failure: Failure) -> None:
        self._alive.remove(candidate)
        if candidate is self._base:
            raise BaseFailed(candidate, failure)
        if candidate is self._leader:  # who led before it leads again
            self._leader = self._base
            if self._base not in self._alive:
                self._alive.insert(0, self._base)
        for _, row in self._rounds:
            row.pop(candidate, None)
        await self._meter.release(candidate)

    def _judge(self) -> None:
        """After each round: who is clearly better leads, who clearly is not goes."""
        rules = self._rules
        self._learn()
        while True:
            ratios = self._against_leader()
            better = [
                (ratio.log, one)
                for one, ratio in ratios
                if not ratio.doubtful and ratio.low(rules.sure) > 1
            ]
            if not better:
                break
            _, best = max(better, key=lambda pair: pair[0])
            self._take_lead(best)
        for one, ratio in ratios:
            if not ratio.doubtful and ratio.high(rules.sure) < 1 + rules.least_gain:
                self._drop(one, ratio)

    def _halve(self) -> None:
        """After the shortest rung: of those that look worse than the leader the better half goes
        on."""
        self._learn()
        ratios = sorted(self._against_leader(), key=lambda pair: -pair[1].log)
        for place, (one, ratio) in enumerate(ratios):
            if place >= (len(ratios) + 1) // 2 and ratio.log < 0 and not ratio.doubtful:
                self._drop(one, ratio)

    def _thin(self) -> None:
        """After a longer one: who shows no gain does not go on."""
        least = math.log1p(self._rules.least_gain) / 2 if self._leader is self._base else 0.0
        for one, ratio in self._against_leader():
            if ratio.log < least and not ratio.doubtful:
                self._drop(one, ratio)

    def _take_lead(self, candidate: Candidate) -> None:
        before, self._leader = self._leader, candidate
        self._alive.remove(before)
        ratio = self.compare(before, candidate)
        if before is not self._base:
            assert ratio is not None
            self._note(before, ratio, candidate)
            self._over.append(before)

    def _drop(self, candidate: Candidate, ratio: Ratio) -> None:
        self._alive.remove(candidate)
        self._note(candidate, ratio, self._leader)
        self._over.append(candidate)

    async def _release(self) -> None:
        while self._over:
            await self._meter.release(self._over.pop())

    def _note(self, candidate: Candidate, ratio: Ratio, against: Candidate) -> None:
        """To the base, where it ran beside it: then the table has one yardstick."""
        to_base = self.compare(candidate, self._base)
        outcome: TriedOutcome = "lost" if ratio.high(self._rules.sure) < 1 else "no-difference"
        if to_base is None:
            self._journal.compared(candidate, against, ratio, outcome)
        else:
            self._journal.compared(candidate, self._base, to_base, outcome)

    def verdict(self, *, unfinished: bool) -> Verdict:
        """By what is known now. Asked once; it waits for nothing, so that a race that is stopped
        has one too."""
        self._learn()
        if self._leader is self._base:
            ahead = [
                (ratio.log, one)
                for one, ratio in self._against_leader()
                if not ratio.doubtful and ratio.low(self._rules.enough) > 1
            ]
            if ahead:
                self._take_lead(max(ahead, key=lambda pair: pair[0])[1])
        winner = None if self._leader is self._base else self._leader
        for one in [one for one in self._alive if one not in (self._leader, self._base)]:
            ratio = self.compare(one, self._leader)
            if ratio is not None:
                self._drop(one, ratio)
        gain = None if winner is None else self.compare(winner, self._base)
        least = math.log1p(self._rules.least_gain) / 2
        near = [
            (one, ratio)
            for one in self._everyone[1:]
            if one is not winner
            and (ratio := self.compare(one, self._base)) is not None
            and ratio.log > least
        ]
        ratios = [
            (one, ratio)
            for one in self._everyone
            if one is not self._leader and (ratio := self.compare(one, self._leader)) is not None
        ]
        self._keep()
        return Verdict(winner, gain, tuple(near), tuple(ratios), tuple(self._unpaid), unfinished)

    def _against_leader(self) -> list[tuple[Candidate, Ratio]]:
        return [
            (one, ratio)
            for one in self._alive
            if one is not self._leader and (ratio := self.compare(one, self._leader)) is not None
        ]

    def _disagreement(self) -> bool:
        return any(ratio.doubtful for _, ratio in self._against_leader())

    def _pairs(self, one: Candidate, other: Candidate) -> list[Pair]:
        return [
            Pair(row[one] - row[other], share)
            for share, row in self._rounds
            if one in row and other in row
        ]

    def _keep(self) -> None:
        """For later races of the same."""
        for place, one in enumerate(self._everyone):
            for other in self._everyone[:place]:
                self._journal.keep_pairs(one.settings, other.settings, self._pairs(one, other))

    def _learn(self) -> None:
        for one in self._everyone:
            if one is not self._leader:
                self._journal.noise.learn((self, one), self._pairs(one, self._leader))
            else:
                self._journal.noise.learn((self, one), ())


__all__ = ["BaseFailed", "Race", "Rules", "Rung", "Sample", "Verdict"]
