"""How far two routers agree, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestro.routing.gates import broken_rows, row_sums
from moestro.routing.reading import Reading
from moestro.routing.sample import LayerSample
from moestro.routing.scores import divergences

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LEFT_OUT = -1
"""In place of the rank of an expert that was not chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """One layer over one chunk."""

    overlap: Floats
    """[T] share of chosen experts that both chose."""

    gate_mass: Floats
    """[≤ T] Σ min(share, share) of the gate weights, which sum to 1 in each model; without tokens
    that have no weights in either."""

    router_kl: Floats
    """[≤ R] KL(reference‖candidate) in nats, without rows that hold a NaN or an infinity."""

    margins: Margins


@dataclass(frozen=True, slots=True, eq=False)
class Margins:
    """How far the logit of the reference's last chosen expert lies above the first one left out,
    for each of N rows in which that can be seen."""

    values: Floats
    """[N]"""

    overlap: Floats
    """[N] of the same tokens."""

    unexplained: int
    """Rows beside these N in which an expert was left out that has a higher logit than a chosen
    one: something else than the logits took part."""


def agreement(reference: Reading, candidate: Reading) -> Agreement:
    """Of readings of the same tokens."""
    overlap, mass = _selections(reference, candidate)
    kl = divergences(reference.router, reference.router_logs, candidate.router_logs)
    return Agreement(
        overlap=overlap,
        gate_mass=mass,
        router_kl=kl[~np.isnan(kl)],
        margins=_margins(reference.sample, overlap),
    )


def _selections(reference: Reading, candidate: Reading) -> tuple[Floats, Floats]:
    """|A ∩ B| / max(|A|, |B|), and the overlap of gate weights, both by token."""
    before, after = reference.sample.chosen, candidate.sample.chosen
    starts = np.arange(len(before))[:, None] * reference.experts
    rank = np.full(len(before) * reference.experts, _LEFT_OUT, dtype=np.int16)
    rank[starts + before] = np.arange(before.shape[1], dtype=np.int16)
    rank = rank[starts + after]  # of each of the candidate's experts, in the reference's choice
    common = (rank != _LEFT_OUT).astype(np.float64)
    overlap = row_sums(common) / max(before.shape[1], after.shape[1])
    share = np.take_along_axis(reference.gates.shares, rank, axis=1) * common
    # What the candidate adds to an expert it takes from others: exactly 0 if nothing moved.
    gained = row_sums(np.maximum(candidate.gates.shares - share, 0.0))
    given_before, given_after = reference.gates.given, candidate.gates.given
    mass = np.where(given_before & given_after, 1.0 - gained, 0.0)
    return overlap, mass[given_before | given_after]


def _margins(sample: LayerSample, overlap: Floats) -> Margins:
    logits = sample.logits.astype(np.float64)
    chosen = sample.chosen[sample.rows]
    if chosen.shape[1] >= logits.shape[1]:
        return Margins(np.zeros(0), np.zeros(0), 0)  # no expert is ever left out
    whole: Bools = ~broken_rows(logits)
    logits, chosen, overlap = logits[whole], chosen[whole], overlap[sample.rows][whole]
    rows = np.arange(len(logits))[:, None]
    last = logits[rows, chosen].min(axis=1)
    logits[rows, chosen] = -np.inf
    margins = last - logits.max(axis=1)
    explained = margins >= 0  # rounding to 16 bits makes ties, and never turns an order round
    return Margins(margins[explained], overlap[explained], int(np.count_nonzero(~explained)))
