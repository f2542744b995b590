"""One question about the settings, and the answers that may be tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from moestro.planning.settings import Settings

_NAMES = frozenset(field.name for field in fields(Settings))


@dataclass(frozen=True, slots=True)
class Value:
    """One answer: `changes` are names and values of `Settings`; `label` says it to people."""

    label: str
    changes: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        strange = {name for name, _ in self.changes} - _NAMES
        if strange:
            raise ValueError(f"there is no setting {', '.join(sorted(strange))}")

    @staticmethod
    def of(label: str, **changes: Any) -> Value:
        return Value(label, tuple(changes.items()))

    def at(self, settings: Settings) -> Settings:
        """`settings` with this value, and nothing else moved: threads that read prompts as those
        that write do are not moved along with these."""
        changes = dict(self.changes)
        if "threads" in changes and settings.threads_batch is None:
            changes.setdefault("threads_batch", settings.threads)
        found = replace(settings, **changes)
        if found.threads_batch == found.threads:  # one way to say it
            found = replace(found, threads_batch=None)
        return found

    def holds(self, settings: Settings) -> bool:
        """Whether `settings` have this value already."""
        return all(said(settings, name) == value for name, value in self.changes)


def said(settings: Settings, name: str) -> Any:
    """A setting's value, however it is said: no number of threads of its own for reading means as
    many as write."""
    if name == "threads_batch" and settings.threads_batch is None:
        return settings.threads
    return getattr(settings, name)


def _always(settings: Settings) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Axis:
    """Values that exclude each other.

    `ordered` values have one best place with worse ones on both sides, as far as is known: then
    the search goes from neighbour to neighbour, and not beyond one that is clearly worse. `first`
    are labels of the values to begin with, where not with the neighbours; of values without an
    order the rest is tried only where one of those gained something. `after` names axes that may
    move this one's best value. `prompt_gain` and `decode_gain` are what a good value commonly saves
    of the time for reading and for writing: they decide the order, nothing else. `applies` says
    whether the question makes sense with settings at all.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool = False
    first: tuple[str, ...] = ()
    after: frozenset[str] = frozenset()
    prompt_gain: float = 0.0
    decode_gain: float = 0.0
    applies: Callable[[Settings], bool] = _always

    def __post_init__(self) -> None:
        unknown = set(self.first) - {value.label for value in self.values}
        if unknown:
            raise ValueError(f"{self.name} has no value {', '.join(sorted(unknown))}")

    def place(self, settings: Settings) -> int | None:
        """Which value `settings` have; None if none of these."""
        for place, value in enumerate(self.values):
            if value.holds(settings):
                return place
        return None

    def promise(self, prompt_share: float) -> float:
        """What looking at it commonly brings where `prompt_share` of the time is reading."""
        return prompt_share * self.prompt_gain + (1 - prompt_share) * self.decode_gain
