"""What may be tried, and what was left out before anything ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moestro.planning.settings import Settings
from moestro.tune.axis import Axis

WhyNot = Callable[[Settings, Settings], str | None]
"""(candidate, incumbent) → what speaks against a try, in words; None if nothing does."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings to try. `label` says how they differ from those that they are compared with."""

    label: str
    settings: Settings
    axis: str


Gentler = Callable[[Candidate], tuple[Candidate, ...]]


@dataclass(frozen=True, slots=True)
class Excluded:
    """What will not be tried, and why. `settings` are None where a whole axis is left out."""

    label: str
    because: str
    settings: Settings | None = None
    axis: str = ""


def _as_it_is(settings: Settings) -> Settings:
    return settings


def _none(crashed: Candidate) -> tuple[Candidate, ...]:
    return ()


def _nothing(candidate: Settings, incumbent: Settings) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Space:
    """`opening` is raced first: each engine, and llama.cpp's own defaults. `axes` follow.

    `gentler` are what may run where one of the opening crashed. `excluded` was left out for good.
    `why_not` is asked for each candidate when its turn comes; before that `fitted` makes room on
    the GPUs for one that needs more of it, if there is a way.
    `twins` are engines that are the code of the start's, compiled for the same instructions.
    `prompt_share` is the forecast part of a request's time that reading takes; None if unknown.
    """

    start: Settings
    opening: tuple[Candidate, ...]
    axes: tuple[Axis, ...]
    excluded: tuple[Excluded, ...] = ()
    why_not: WhyNot = _nothing
    gentler: Gentler = _none
    fitted: Callable[[Settings], Settings] = _as_it_is
    twins: frozenset[str] = frozenset()
    prompt_share: float | None = None
