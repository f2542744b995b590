"""How much short greedy generations repeat themselves, and whether more than the reference's.

Small models loop even when they are sound, so a candidate is only ever held against the
reference's continuations of the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moestro.routing.interval import Interval, bootstrap_mean

NGRAM_TOKENS = 4
LONGEST_PERIOD = 64
LEAST_TURNS = 3
LEAST_LOOP_TOKENS = 12
"""A loop is at least three turns and twelve tokens: “no, no, no” is a style, not a fault."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The same `period` tokens, `turns` times in a row; the last turn may be cut off."""

    period: int
    turns: float
    at_end: bool

    def to_json(self) -> dict[str, float | int | bool]:
        return {"period": self.period, "turns": self.turns, "at_end": self.at_end}


@dataclass(frozen=True, slots=True)
class Repetitiveness:
    """Of one model's generations.

    `repeated` is the mean share of n-grams that the same generation already held (seq-rep-4 of
    Welleck et al. 2020, “Neural Text Generation with Unlikelihood Training”); `ending_in_loop` the
    share of generations whose end goes round; `longest_loop` the one with most turns.
    """

    repeated: float
    ending_in_loop: float
    longest_loop: Loop | None

    def to_json(self) -> dict[str, object]:
        loop = self.longest_loop
        return {
            "repeated": self.repeated,
            "ending_in_loop": self.ending_in_loop,
            "longest_loop": loop.to_json() if loop else None,
        }


@dataclass(frozen=True, slots=True)
class Repetition:
    """`excess` is the candidate's mean share of repeated n-grams less the reference's, prompt by
    prompt; `loops_excess` the same of generations that end in a loop."""

    prompts: int
    candidate: Repetitiveness
    reference: Repetitiveness
    excess: Interval
    loops_excess: Interval

    def to_json(self) -> dict[str, object]:
        return {
            "prompts": self.prompts,
            "candidate": self.candidate.to_json(),
            "reference": self.reference.to_json(),
            "excess": self.excess.to_json(),
            "loops_excess": self.loops_excess.to_json(),
        }


def compare_repetition(
    candidate: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]
) -> Repetition | None:
    """Both models' continuations of the same prompts, in the same order; None without prompts.

    Raises:
        ValueError: not as many of the one as of the other.
    """
    if len(candidate) != len(reference):
        raise ValueError(f"{len(candidate)} generations against {len(reference)}")
    if not candidate:
        return None
    repeated = [repeated_share(tokens) for tokens in candidate]
    repeated_reference = [repeated_share(tokens) for tokens in reference]
    loops = [find_loop(tokens) for tokens in candidate]
    loops_reference = [find_loop(tokens) for tokens in reference]
    return Repetition(
        prompts=len(candidate),
        candidate=_summary(repeated, loops),
        reference=_summary(repeated_reference, loops_reference),
        excess=_paired(repeated, repeated_reference),
        loops_excess=_paired(_ends(loops), _ends(loops_reference)),
    )


def repeated_share(tokens: Sequence[int]) -> float:
    """Of the 4-grams of a generation, the share that occurred in it before; 0 if it has none."""
    ngrams = [
        tuple(tokens[place : place + NGRAM_TOKENS])
        for place in range(len(tokens) - NGRAM_TOKENS + 1)
    ]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def find_loop(tokens: Sequence[int]) -> Loop | None:
    """The loop that covers most tokens; of several as long, the one of the shortest period."""
    best, best_length = None, 0
    for period in range(1, min(LONGEST_PERIOD, len(tokens) // LEAST_TURNS) + 1):
        run = 0
        for place in range(period, len(tokens) + 1):
            if place < len(tokens) and tokens[place] == tokens[place - period]:
                run += 1
                continue
            length = run + period
            if (
                length > best_length
                and length >= LEAST_TURNS * period
                and length >= LEAST_LOOP_TOKENS
            ):
                best_length = length
                best = Loop(period, length / period, place == len(tokens))
            run = 0
    return best


def _summary(repeated: Sequence[float], loops: Sequence[Loop | None]) -> Repetitiveness:
    found = [loop for loop in loops if loop is not None]
    return Repetitiveness(
        repeated=sum(repeated) / len(repeated),
        ending_in_loop=sum(_ends(loops)) / len(loops),
        longest_loop=max(found, key=lambda loop: loop.turns, default=None),
    )


def _ends(loops: Sequence[Loop | None]) -> list[float]:
    return [float(loop is not None and loop.at_end) for loop in loops]


def _paired(candidate: Sequence[float], reference: Sequence[float]) -> Interval:
    differences = [one - other for one, other in zip(candidate, reference, strict=True)]
    interval = bootstrap_mean(differences, [1.0] * len(differences), bounds=(-1.0, 1.0))
    assert interval is not None  # only a count of zero has none
    return interval
