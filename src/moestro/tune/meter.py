"""Measures within a budget: what a try costs, counted as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from moestro.planning.settings import Settings
from moestro.tune.arena import Arena, Failure, Sample
from moestro.tune.candidate import Candidate
from moestro.tune.disturbance import Usual
from moestro.tune.journal import Journal


class OutOfBudget(Exception):
    """The next sample would cost more than is left. Stays inside this room."""


class Meter:
    """`reserve_seconds` are kept for the confirmation, `held_back_seconds` for what comes after the
    search. The budget counts from `began`, by `clock`. A part of the workload is never run twice
    with the same settings: the engine would remember its prompts."""

    def __init__(
        self,
        arena: Arena,
        journal: Journal,
        budget_seconds: float,
        clock: Callable[[], float],
        *,
        began: float | None = None,
        held_back_seconds: float = 0.0,
    ) -> None:
        self.arena = arena
        self.journal = journal
        self.budget_seconds = budget_seconds
        self.reserve_seconds = 0.0
        self.held_back_seconds = held_back_seconds
        self.one_at_a_time = False
        """Engines end as others start, although nobody released them: there is no room for
        several, so each visit has to be worth its start."""

        self._clock = clock
        self._began = clock() if began is None else began
        self._parts = 0
        self._full_seconds: dict[Settings, tuple[float, float]] = {}
        self._ran: set[Settings] = set()
        self._usual = Usual()
        journal.budget_seconds = budget_seconds

    @property
    def spent_seconds(self) -> float:
        return self._clock() - self._began

    @property
    def left_seconds(self) -> float:
        """Without what is reserved and held back."""
        kept = self.reserve_seconds + self.held_back_seconds
        return self.budget_seconds - self.spent_seconds - kept

    def next_part(self) -> int:
        self._parts += 1
        return self._parts - 1

    def full_seconds(self, settings: Settings) -> float:
        """What one whole part costs with settings, by the longest part that they ran: attention
        makes whole prompts dearer than several short ones. As much as with the quickest others
        where they never ran; 0 before anything did."""
        known = self._full_seconds
        if settings in known:
            return known[settings][1]
        return min((seconds for _, seconds in known.values()), default=0.0)

    def starting_seconds(self, settings: Settings) -> float:
        """What starting an engine like that of `settings` costs, whether or not one runs: what the
        arena says of settings that nobody has."""
        return self.arena.start_seconds(replace(settings, context=settings.context + 1))

    def cost(self, settings: Settings, share: float) -> float:
        """Seconds that such a sample takes, the start of an engine included where none runs."""
        return self.arena.start_seconds(settings) + share * self.full_seconds(settings)

    async def sample(
        self, candidate: Candidate, part: int, share: float, *, forced: bool = False
    ) -> Sample | Failure:
        """Raises OutOfBudget before it starts what cannot be paid, unless it is `forced`."""
        settings = candidate.settings
        starting = self.arena.start_seconds(settings)
        cost = starting + share * self.full_seconds(settings)
        if not forced and cost > self.left_seconds:
            raise OutOfBudget
        if settings in self._ran and starting > 0:
            self.one_at_a_time = True
        found = await self.arena.measure(settings, part=part, share=share)
        self.journal.spent_seconds = self.spent_seconds
        if isinstance(found, Failure):
            self._ran.discard(settings)
            self.journal.failed(candidate, found)
            return found
        self._ran.add(settings)
        self._usual.learn(found.disturbance)
        ran = found.share or share
        full = max(found.spent_seconds - found.starting_seconds, 0.0) / ran
        before, seconds = self._full_seconds.get(settings, (0.0, full))
        if ran >= before:
            self._full_seconds[settings] = (ran, min(full, seconds) if ran == before else full)
        self.journal.measured(candidate, found, share)
        return found

    def disturbed(self, samples: Iterable[Sample]) -> bool:
        """Whether one of them was, more than is usual here: the round is worth another try."""
        return any(self._usual.exceeded(sample.disturbance) for sample in samples)

    async def release(self, candidate: Candidate) -> None:
        self._ran.discard(candidate.settings)
        await self.arena.release(candidate.settings)
