"""Which settings a frontier is measured for: what won, where it began, and what may trade."""

from __future__ import annotations

from dataclasses import dataclass

from moestro.planning.settings import Settings
from moestro.tune.result import Tried, TuneResult

CHOSEN = "chosen"
START = "start"
MOST_MORE = 2
"""Beside the chosen and the starting settings: each of them is as dear as those."""

_FIGURES = ("ttft_seconds", "time_per_token_seconds")
_RAN = ("won", "no-difference", "lost")


@dataclass(frozen=True, slots=True)
class Rival:
    """`request_seconds`: what nine of ten requests took at most in the search, if known."""

    label: str
    settings: Settings
    request_seconds: float | None = None


def rivals(result: TuneResult, *, shortened: bool = False) -> tuple[Rival, ...]:
    """The chosen settings first, then the starting ones if they are others and ran, then up to
    `MOST_MORE` that the search tried and that are not clearly worse than the chosen ones, or whose
    first token or time per token is better than theirs by more than the noise.

    Of these the ones go first whose gain in one figure makes up best for what they lack altogether.
    `shortened`: the first look took shortened prompts, so that first tokens cannot be compared.
    """
    tried = {one.settings: one for one in result.trials if one.settings is not None}
    chosen = tried.get(result.settings)
    found = [_rival(CHOSEN, result.settings, chosen)]
    if result.start != result.settings and result.gain is not None:
        found.append(_rival(START, result.start, tried.get(result.start)))
    least = 1.0 if chosen is None or chosen.ratio is None else chosen.ratio.low
    names = ("time_per_token_seconds",) if shortened else _FIGURES
    scored: list[tuple[float, Rival]] = []
    for settings, one in tried.items():
        if settings in (result.settings, result.start) or one.outcome not in _RAN:
            continue
        better = _better(one, chosen, names)
        near = one.outcome != "lost" and one.ratio is not None and one.ratio.high >= least
        if near or better > 1 + result.noise:
            ratio = one.ratio.expected if one.ratio is not None else 1.0
            scored.append((ratio * max(better, 1.0), _rival(one.label, settings, one)))
    scored.sort(key=lambda each: each[0], reverse=True)
    return (*found, *(rival for _, rival in scored[:MOST_MORE]))


def _better(one: Tried, chosen: Tried | None, names: tuple[str, ...]) -> float:
    """By what factor its best figure is better than the same of the chosen settings; 0 where
    none is known."""
    factors = [
        chosen.figures[name] / one.figures[name]
        for name in names
        if chosen is not None and chosen.figures.get(name) and one.figures.get(name)
    ]
    return max(factors, default=0.0)


def _rival(label: str, settings: Settings, tried: Tried | None) -> Rival:
    took = None if tried is None else tried.figures.get("latency_p90_seconds")
    return Rival(label, settings, took)
