"""What is known so far. It is whole at every moment, so a search may be stopped at any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import get_args

from moestro.planning.settings import Reason, Settings
from moestro.tune.arena import Failure, Outcome, Sample
from moestro.tune.candidate import Candidate, Excluded
from moestro.tune.result import Tried, TriedOutcome, TuneResult
from moestro.tune.statistics import SAME, UNCHANGED, Interval, Noise, Pair, Ratio
from moestro.tune.wording import in_words, settings_changed


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show while it goes on. `ratio` is to what the settings were compared with."""

    kind: str
    """"measured", "race", "dropped", "failed", "adopted", "confirming", "done"."""

    sentence: str
    spent_seconds: float
    budget_seconds: float
    settings: Settings | None = None
    ratio: Interval | None = None


OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Step:
    """A change of the incumbent. `ratio` is to the incumbent before it."""

    candidate: Candidate
    before: Candidate
    ratio: Ratio


@dataclass(slots=True)
class _Row:
    candidate: Candidate
    outcome: TriedOutcome = "not-reached"
    sentence: str = "the budget did not reach it"
    against: Candidate | None = None
    direct: Ratio | None = None
    samples: list[tuple[float, Sample]] = field(default_factory=list)


class Journal:
    """Keeps trials in their order, the path of incumbents and the noise; tells of each as it
    happens. Give one to `tune` to have its `result()` after a Ctrl-C."""

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.noise = Noise()
        self.objective = ""
        self.start: Candidate | None = None
        self.start_fails: str | None = None
        self.path: list[Step] = []
        self.confirmed: Ratio | None = None
        self.stays: str | None = None
        """Why the start stays, where the confirmation went against what was found."""

        self.disturbed = 0
        """Rounds that did not count, because somebody else wanted the processors."""

        self.spent_seconds = 0.0
        self.budget_seconds = 0.0
        self.stopped: str | None = "it has not ended"
        self._rows: dict[Settings, _Row] = {}
        self._left_out: list[Excluded] = []
        self._to_start: dict[Settings, Ratio] = {}
        self._pairs: dict[tuple[Settings, Settings], tuple[Pair, ...]] = {}
        self._on_event = on_event

    # What happens

    def tell(
        self,
        kind: str,
        sentence: str,
        settings: Settings | None = None,
        ratio: Ratio | None = None,
    ) -> None:
        if self._on_event is not None:
            shown = None if ratio is None else ratio.interval
            self._on_event(
                Event(kind, sentence, self.spent_seconds, self.budget_seconds, settings, shown)
            )

    def began(self, start: Candidate, objective: str, excluded: Sequence[Excluded]) -> None:
        self.start = start
        self.objective = objective
        self._to_start[start.settings] = SAME
        self._row(start).outcome = "start"
        self._row(start).sentence = "where the search began"
        self._left_out += excluded

    def measured(self, candidate: Candidate, sample: Sample, share: float) -> None:
        row = self._row(candidate)
        row.samples.append((share, sample))
        if self.start is not None and candidate.settings == self.start.settings:
            self.start_fails, row.outcome = None, "start"  # it runs again
            row.sentence = "where the search began"
        self.tell("measured", candidate.label, candidate.settings)

    def failed(self, candidate: Candidate, failure: Failure) -> None:
        row = self._row(candidate)
        row.outcome, row.sentence = failure.outcome, failure.sentence
        if self.start is not None and candidate.settings == self.start.settings:
            self.start_fails = failure.sentence
        said = f"{candidate.label}: {failure.sentence}"
        self.tell("failed", said, candidate.settings)

    def left_out(self, candidate: Candidate, because: str) -> None:
        if candidate.settings not in self._rows:
            self._left_out.append(
                Excluded(candidate.label, because, candidate.settings, candidate.axis)
            )

    def skipped(self, axis: str, because: str) -> None:
        self._left_out.append(Excluded(axis, because, axis=axis))

    def waiting(self, candidate: Candidate) -> None:
        """In the table from now on, as not reached."""
        self._row(candidate)

    def compared(
        self, candidate: Candidate, against: Candidate, ratio: Ratio, outcome: TriedOutcome
    ) -> None:
        row = self._row(candidate)
        row.direct, row.against = ratio, against
        base = self._to_start.get(against.settings)
        if base is not None and candidate.settings not in self._path_settings:
            self._to_start[candidate.settings] = ratio.times(base)
        if row.outcome != "start":
            row.outcome = outcome
            row.sentence = in_words(candidate.label, against.label, ratio)
        if outcome in ("lost", "no-difference"):
            self.tell("dropped", row.sentence, candidate.settings, ratio)

    def adopted(self, candidate: Candidate, before: Candidate, ratio: Ratio) -> None:
        self.compared(candidate, before, ratio, "won")
        self.path.append(Step(candidate, before, ratio))
        self.tell(
            "adopted", in_words(candidate.label, before.label, ratio), candidate.settings, ratio
        )

    def retreated(self) -> Candidate | None:
        """The last change of the incumbent is taken back; who is incumbent then."""
        if not self.path:
            return None
        return self.path.pop().before

    def keep_pairs(self, one: Settings, other: Settings, pairs: Sequence[Pair]) -> None:
        """Log-ratios of `one` to `other`."""
        if pairs:
            self._pairs[one, other] = (*self._pairs.get((one, other), ()), *pairs)

    def pairs(self, one: Settings, other: Settings) -> tuple[Pair, ...]:
        """All that was kept of the two, as log-ratios of `one` to `other`."""
        turned = (Pair(-pair.log, pair.share) for pair in self._pairs.get((other, one), ()))
        return (*self._pairs.get((one, other), ()), *turned)

    def confirm(self, candidate: Candidate, ratio: Ratio) -> None:
        """Fresh pairs say what it gains: that is what the table says then too."""
        self.confirmed = ratio
        self._to_start[candidate.settings] = ratio

    def refuted(self, candidate: Candidate, ratio: Ratio) -> None:
        """Fresh pairs do not bear out what `candidate` was chosen for."""
        assert self.start is not None
        row = self._row(candidate)
        said = in_words(candidate.label, self.start.label, ratio)
        row.outcome, row.sentence = "lost", f"{said}, when looked at afresh"
        row.direct, row.against = ratio, self.start
        self._to_start[candidate.settings] = ratio
        self.stays = f"{row.sentence}: they stay"
        self.tell("dropped", row.sentence, candidate.settings, ratio)

    def failed_late(self, candidate: Candidate, failure: Failure) -> None:
        """It ran, and not when it was to be confirmed."""
        self._to_start.pop(candidate.settings, None)
        self.stays = f"{candidate.label} failed when run afresh: {failure.sentence}"

    def left_open(self, candidate: Candidate) -> None:
        """Fresh pairs speak against what was chosen, and no time is left for more of them."""
        row = self._row(candidate)
        row.outcome = "no-difference"
        row.sentence = f"{candidate.label}: no time was left to see whether it is better afresh"
        self._to_start.pop(candidate.settings, None)
        self.stays = self.stays or f"{row.sentence}: they stay"

    # What is known

    @property
    def incumbent(self) -> Candidate | None:
        return self.path[-1].candidate if self.path else self.start

    @property
    def _path_settings(self) -> frozenset[Settings]:
        return frozenset(step.candidate.settings for step in self.path)

    def known(self, settings: Settings) -> bool:
        """Whether they were tried, so that they need not be again."""
        row = self._rows.get(settings)
        return row is not None and row.outcome != "not-reached"

    def failed_with(self, settings: Settings) -> str | None:
        """The sentence with which they failed, if they did."""
        row = self._rows.get(settings)
        return row.sentence if row is not None and row.outcome in get_args(Outcome) else None

    def crashed(self, settings: Settings) -> bool:
        """Whether they ran, and then their engine ended."""
        row = self._rows.get(settings)
        return row is not None and row.outcome == "crashed"

    def figure(self, settings: Settings, name: str) -> float | None:
        """The median of a figure over the samples of some settings."""
        row = self._rows.get(settings)
        found = [s.figures[name] for _, s in row.samples if name in s.figures] if row else []
        return median(found) if found else None

    def result(self) -> TuneResult:
        """As of now. Before a confirmation the incumbent counts only if the comparisons that made
        it one, less what choosing the best of several adds, leave no doubt that it is better than
        the start.

        Raises ValueError before the search began.
        """
        start, chosen = self.start, self.incumbent
        if start is None or chosen is None:
            raise ValueError("the search has not begun")
        gain: Interval | None = UNCHANGED
        confirmed = True
        if self.start_fails is not None:
            gain = None
        elif chosen is not start and self.confirmed is not None:
            gain = self.confirmed.interval
        elif chosen is not start:
            confirmed = False
            chain = self._unconfirmed()
            if not chain.doubtful and chain.low() > 1:
                gain = chain.interval
            else:
                chosen = start
        return TuneResult(
            objective=self.objective,
            start=start.settings,
            settings=chosen.settings,
            gain=gain,
            confirmed=confirmed,
            trials=self._trials(chosen),
            reasons=self._reasons(chosen),
            spent_seconds=self.spent_seconds,
            budget_seconds=self.budget_seconds,
            noise=self.noise.scale()[0] / 2**0.5,
            disturbed=self.disturbed,
            complete=self.stopped is None,
            stopped=self.stopped,
            engine=chosen.settings.engine,
        )

    def _unconfirmed(self) -> Ratio:
        """The incumbent to the start, by the comparisons that made it one. Each was the best of
        some, so it looks better than it is, by about its standard error."""
        found = SAME
        for step in self.path:
            ratio = step.ratio
            found = found.times(replace(ratio, log=ratio.log - ratio.error))
        return found

    def _row(self, candidate: Candidate) -> _Row:
        return self._rows.setdefault(candidate.settings, _Row(candidate))

    def _trials(self, chosen: Candidate) -> tuple[Tried, ...]:
        rows = [self._tried(row, row.candidate.settings == chosen.settings)
                for row in self._rows.values()]  # fmt: skip
        seen = set(self._rows)
        for one in self._left_out:
            if one.settings is None or one.settings not in seen:
                rows.append(Tried(one.label, one.axis, "excluded", one.because, one.settings))
            if one.settings is not None:
                seen.add(one.settings)
        return tuple(rows)

    def _tried(self, row: _Row, chosen: bool) -> Tried:
        settings = row.candidate.settings
        longest = max((share for share, _ in row.samples), default=None)
        values = [sample.value for share, sample in row.samples if share == longest]
        names = sorted({name for _, sample in row.samples for name in sample.figures})
        ratio = self._to_start.get(settings)
        is_start = self.start is not None and settings == self.start.settings
        return Tried(
            label=row.candidate.label,
            axis=row.candidate.axis,
            outcome="chosen" if chosen and not is_start else row.outcome,
            sentence=row.sentence,
            settings=settings,
            objective=fmean(values) if values else None,
            ratio=ratio.interval if ratio is not None and row.samples else None,
            direct=row.direct.interval if row.direct is not None else None,
            against=row.against.label if row.against is not None else None,
            pairs=row.direct.pairs if row.direct is not None else 0,
            figures={
                name: median(s.figures[name] for _, s in row.samples if name in s.figures)
                for name in names
            },
        )

    def _reasons(self, chosen: Candidate) -> tuple[Reason, ...]:
        """One for each setting that moved, and for each that was looked at and stays."""
        assert self.start is not None
        if self.stays is not None and chosen is self.start:
            return (Reason("engine", self.stays, "measured"),)
        found: dict[str, Reason] = {}
        for step in self.path if chosen is self.incumbent else ():
            because = in_words(step.candidate.label, step.before.label, step.ratio)
            for name in settings_changed(step.before.settings, step.candidate.settings):
                found[name] = Reason(name, because, "measured")
        for row in self._rows.values():
            if row.direct is None or row.against is None or row.outcome == "won":
                continue
            # A loser shows why a setting stays, if that is the only one in which it differs.
            names = settings_changed(row.against.settings, row.candidate.settings)
            if len(names) == 1 and names[0] not in found and not row.direct.doubtful:
                found[names[0]] = Reason(names[0], row.sentence, "measured")
        moved = settings_changed(self.start.settings, chosen.settings)
        return tuple(
            reason
            for name, reason in found.items()
            if name in moved or getattr(self.start.settings, name) == getattr(chosen.settings, name)
        )
