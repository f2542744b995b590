"""Experts that were never selected: dead, or not met yet?

An expert with a small load is missed by a short text, and tokens of one text are no independent
draws: they come in topics, so a text of T tokens shows no more than T / d independent ones would.
d is the design effect (Kish 1965), the variance of selections between groups of chunks over what
independent tokens would have. An expert that each token selects with probability π is then missed
with probability

    P(never) ≤ (1 − π)^(T / d)

The bound holds if selections come in clumps (compound Poisson: d = E[X²]/E[X] is at least the mean
size E[X] of a clump, and P(never) is that there was no clump) and if the rate itself varies from
group to group (gamma: P(never) = d^(−πT/(d−1)), and ln d/(d−1) ≥ 1/d).

Turned round: what was never selected has at most the π for which P(never) is still α. That is asked
of every expert in every layer at once, so α is 1 % over their number (Bonferroni).

d cannot be measured of an expert that was never seen, so it is taken from the others of its layer.
It grows with the rate where rates vary and stays level where selections clump: d(π) = a + b·π, by
weighted least squares. Only what is certain of the slope counts (two standard errors less); the
rest is taken as clumping, which makes the test more careful.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_GROUPS = 5
"""Fewer groups of chunks do not tell how much counts vary."""

DEAD_BELOW = 0.1
"""Dead: at most this part of an even share, with 99 % confidence for all experts together."""

ERROR_RATE = 0.01
_LEAST_EXPERTS_FOR_A_SLOPE = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DesignEffect:
    """d(π) = `base` + `slope` · π; never below 1."""

    base: float
    slope: float

    def at(self, rate: float) -> float:
        return self.base + self.slope * rate


@dataclass(frozen=True, slots=True)
class Unseen:
    """`experts` were never selected. `at_most` is the largest load that such an expert may still
    have, as a part of an even share (1 = as busy as the average); None if the text has too few
    groups to say."""

    experts: tuple[int, ...]
    at_most: float | None

    @property
    def dead(self) -> tuple[int, ...]:
        """`experts`, if chance is ruled out; otherwise none."""
        if self.at_most is None or self.at_most > DEAD_BELOW:
            return ()
        return self.experts


def design_effect(counts: Floats, tokens: Floats) -> DesignEffect | None:
    """From selections [groups, experts] and tokens [groups]; None if there is too little of it."""
    counts, tokens = counts[tokens > 0], tokens[tokens > 0]
    if len(tokens) < LEAST_GROUPS:
        return None
    rates = counts.sum(axis=0) / tokens.sum()
    usable = (rates > 0) & (rates < 1)
    if not usable.any():
        return None  # every expert by every token, or by none: nothing varies
    rates, counts = rates[usable], counts[:, usable]
    independent = np.outer(tokens, rates * (1 - rates))
    squares = (counts - np.outer(tokens, rates)) ** 2 / independent
    return _line(rates, squares.sum(axis=0) / (len(tokens) - 1))


def unseen(counts: Floats, tokens: float, used: int, effect: DesignEffect | None,
           hypotheses: int) -> Unseen:  # fmt: skip
    """Over selections [experts] of `tokens` tokens that select `used` experts each; `hypotheses` is
    how many experts are looked at in all layers together."""
    never = tuple(int(expert) for expert in np.flatnonzero(counts == 0))
    if effect is None or tokens <= 0:
        return Unseen(never, None)
    rate = highest_missed_rate(tokens, effect, ERROR_RATE / hypotheses)
    return Unseen(never, rate * len(counts) / used)


def highest_missed_rate(tokens: float, effect: DesignEffect, chance: float) -> float:
    """The largest π with (1 − π)^(tokens / d(π)) ≥ `chance`."""
    needed = -math.log(chance)
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        if rate < 1 and -math.log1p(-rate) * tokens / effect.at(rate) < needed:
            low = rate
        else:
            high = rate
    return high


def lost(reference: Floats, candidate: Floats, tokens: float, effect: DesignEffect | None,
         hypotheses: int) -> tuple[int, ...]:  # fmt: skip
    """Experts that the reference selects and the candidate never does, beyond chance.

    Chance: if each of the reference's selections were a mere toss whether the candidate makes it
    too, n of them would all be lost with probability 2^(−n/d), d as above.
    """
    if effect is None or tokens <= 0:
        return ()
    gone = np.flatnonzero(candidate == 0)
    enough = math.log2(hypotheses / ERROR_RATE)
    return tuple(
        int(expert)
        for expert in gone
        if reference[expert] / effect.at(reference[expert] / tokens) > enough
    )


def _line(rates: Floats, effects: Floats) -> DesignEffect:
    """Weighted by 1/d², as the scatter of an estimated variance is proportional to it."""
    base, slope = float(effects.mean()), 0.0
    if len(rates) >= _LEAST_EXPERTS_FOR_A_SLOPE:
        for _ in range(5):
            weights = np.maximum(base + slope * rates, 1.0) ** -2.0
            weights /= weights.sum()
            mean_rate, mean_effect = float(weights @ rates), float(weights @ effects)
            apart = rates - mean_rate
            spread = float(weights @ apart**2)
            if spread <= 0:
                return DesignEffect(max(mean_effect, 1.0), 0.0)
            fitted = float(weights @ (apart * effects)) / spread
            residual = effects - mean_effect - fitted * apart
            error = math.sqrt(float(weights**2 @ (apart * residual) ** 2)) / spread
            slope = max(fitted - 2 * error, 0.0)
            base = mean_effect - slope * mean_rate
    return DesignEffect(max(base, 1.0), slope)
