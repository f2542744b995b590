"""A reference's next-token distributions in little space, good enough for the divergence.

Of each distribution are kept: the likeliest tokens, the total of all others (the tail), and a few
tokens drawn from the tail. With P and Q the tail's mass in reference and candidate,

    KL = Σ_kept p·log(p/q) + P·log(P/Q) + P·KL(tail of p ‖ tail of q)

of which the first two terms are exact: the candidate's logits are whole when it is compared. The
last is estimated from the drawn tokens. With r = (q/Q)/(p/P) its expectation is that of −log r and
also that of r − 1 − log r, because r has mean 1; the second scatters far less where the two are
close (the control variate of Schulman's “Approximating KL Divergence”, 2020). Where the exact
terms say that they are not close, r can be wild, and the first is the safer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.verify.softmax import row_blocks, sum_rows
from moestro.verify.token_divergence import TokenDivergence, check_targets

KEPT_MASS = 0.999
MOST_KEPT = 512
TAIL_MASS_PER_DRAW = 1 / 1024
MOST_DRAWN = 128
LEAST_DRAWN = 4
_GROUP = 256
"""Of tokens among which one is drawn; weights come in whole groups."""
_CLOSE = 0.1
"""Nats of divergence at which both estimators of the tail get the same weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """S distributions over `vocabulary` tokens. Logarithms are natural, ids and logarithms of row
    s lie in `ids[ends[s-1]:ends[s]]`, likeliest first; those of the tail likewise.

    A row whose logits were not finite has no ids and NaN in `target_log_p`.
    """

    vocabulary: int
    ends: NDArray[np.uint32]
    ids: NDArray[np.uint32]
    log_p: NDArray[np.float32]
    tail_ends: NDArray[np.uint32]
    tail_ids: NDArray[np.uint32]
    tail_log_p: NDArray[np.float32]
    tail_log_mass: NDArray[np.float32]
    target_log_p: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def top(self) -> NDArray[np.int64]:
        """[S] the likeliest token; −1 where the logits were not finite."""
        first = np.concatenate([[0], self.ends[:-1]]).astype(np.intp)
        found = np.full(len(self), -1, np.int64)
        there = self.ends > first
        found[there] = self.ids[first[there]]
        return found


def sketch_logits(logits: NDArray[np.float32], targets: NDArray[np.int32], seed: int) -> Sketch:
    """Keeps the likeliest tokens until 99.9 % of the mass or 512 tokens.

    `logits` [S, V]; `targets` [S] are the next tokens. The same seed draws the same tokens.

    Raises:
        ValueError: the shapes do not belong together, or a target is not in the vocabulary.
    """
    rows, vocabulary = logits.shape
    check_targets(targets, rows, vocabulary)
    generator = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        kept = [_sketch_row(logits[row], int(targets[row]), generator) for row in range(rows)]
    return Sketch(
        vocabulary=vocabulary,
        ends=np.cumsum([len(row.ids) for row in kept], dtype=np.uint32),
        ids=_joined([row.ids for row in kept], np.uint32),
        log_p=_joined([row.log_p for row in kept], np.float32),
        tail_ends=np.cumsum([len(row.tail_ids) for row in kept], dtype=np.uint32),
        tail_ids=_joined([row.tail_ids for row in kept], np.uint32),
        tail_log_p=_joined([row.tail_log_p for row in kept], np.float32),
        tail_log_mass=np.array([row.tail_log_mass for row in kept], np.float32),
        target_log_p=np.array([row.target_log_p for row in kept], np.float32),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    ids: NDArray[np.intp]
    log_p: NDArray[np.float64]
    tail_ids: NDArray[np.intp]
    tail_log_p: NDArray[np.float64]
    tail_log_mass: float
    target_log_p: float


def _sketch_row(logits: NDArray[np.float32], target: int, generator: np.random.Generator) -> _Row:
    nothing = np.empty(0, np.intp), np.empty(0)
    top = int(logits.argmax())
    greatest = np.float64(logits[top])
    if not np.isfinite(logits).all():
        return _Row(*nothing, *nothing, np.nan, np.nan)
    # Of equal logits the first is the top, here as everywhere.
    ids = _likeliest(logits, min(MOST_KEPT, len(logits)), top)
    shifted = logits[ids].astype(np.float64) - greatest
    exponentials = np.exp(shifted)
    rest = np.zeros(-(-len(logits) // _GROUP) * _GROUP, np.float32)
    np.exp(logits - logits[top], out=rest[: len(logits)])
    rest[ids] = 0
    total = exponentials.sum() + float(rest.sum())
    reached = int(np.searchsorted(np.cumsum(exponentials), KEPT_MASS * total)) + 1
    # Tokens beyond that mass belong to the tail.
    rest[ids[reached:]] = exponentials[reached:]
    ids, shifted = ids[:reached], shifted[:reached]
    tail = float(rest.sum())
    log_total = np.log(total)
    drawn = _draw(rest, tail / total, generator)
    return _Row(
        ids,
        shifted - log_total,
        drawn,
        logits[drawn].astype(np.float64) - greatest - log_total,
        float(np.log(tail) - log_total),
        float(logits[target] - greatest - log_total),
    )


def _likeliest(logits: NDArray[np.float32], count: int, top: int) -> NDArray[np.intp]:
    """Ids of the greatest logits, greatest first; `top` before its equals."""
    ids = np.argpartition(logits, len(logits) - count)[-count:]
    if top not in ids:
        ids[0] = top
    order = np.lexsort((ids != top, -logits[ids]))
    return ids[order]


def _draw(
    weights: NDArray[np.float32], mass: float, generator: np.random.Generator
) -> NDArray[np.intp]:
    """Tokens in proportion to their weights, more of them the more mass the tail has.

    Each is drawn from a stratum of its own, one of n equal parts of the mass: as unbiased as
    independent draws, and it scatters less.
    """
    if not mass > 0:
        return np.empty(0, np.intp)
    count = int(np.clip(np.ceil(mass / TAIL_MASS_PER_DRAW), LEAST_DRAWN, MOST_DRAWN))
    # Two steps, because a running sum over a whole vocabulary is slow: the group, then within it.
    groups = weights.reshape(-1, _GROUP)
    sums = groups.sum(axis=1, dtype=np.float64)
    ends = np.cumsum(sums)
    places = (np.arange(count) + generator.random(count)) / count * ends[-1]
    group = np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)
    inner = np.cumsum(groups[group], axis=1, dtype=np.float64)
    # Rounding must not carry a place beyond the group's last token.
    within = np.minimum(places - (ends - sums)[group], inner[:, -1] * (1 - 1e-9))
    found: NDArray[np.intp] = group * _GROUP + (inner <= within[:, None]).sum(axis=1)
    return found[weights[found] > 0]


def compare_sketch(
    sketch: Sketch, candidate: NDArray[np.float32], targets: NDArray[np.int32]
) -> TokenDivergence:
    """As `compare_logits`, with the reference's sketch for its logits; `candidate` is [S, V].

    Raises:
        ValueError: the shapes do not belong together, or a target is not in the vocabulary.
    """
    rows, vocabulary = candidate.shape
    if (rows, vocabulary) != (len(sketch), sketch.vocabulary):
        wanted = len(sketch), sketch.vocabulary
        raise ValueError(f"logits {candidate.shape} against a sketch of {wanted}")
    check_targets(targets, rows, vocabulary)
    kld, nll, same_top = np.empty(rows), np.empty(rows), np.empty(rows, np.bool_)
    with np.errstate(all="ignore"):
        for block in row_blocks(rows, vocabulary):
            kld[block], nll[block], same_top[block] = _compare_rows(
                sketch, block, candidate[block], targets[block]
            )
    nll_reference = -sketch.target_log_p.astype(np.float64)
    bad = ~(np.isfinite(kld) & np.isfinite(nll) & np.isfinite(nll_reference))
    for row in np.flatnonzero(bad):
        kld[row] = np.nan
        if not np.isfinite(candidate[row]).all():
            nll[row] = np.nan
    return TokenDivergence(kld, nll_reference, nll, same_top & ~bad)


def _compare_rows(
    sketch: Sketch,
    block: slice,
    logits: NDArray[np.float32],
    targets: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    count = len(logits)
    each = np.arange(count)
    top = logits.argmax(axis=1)
    greatest = logits[each, top]
    rest = np.exp(logits - greatest[:, None])

    rows, inside = _members(sketch.ends, block)
    ids = sketch.ids[inside]
    shifted = logits[rows, ids].astype(np.float64) - greatest[rows]
    kept = sum_rows(rows, np.exp(shifted), count)
    rest[rows, ids] = 0
    tail = rest.sum(axis=1, dtype=np.float64)
    log_total = np.log(kept + tail)

    log_p = sketch.log_p[inside].astype(np.float64)
    coarse = sum_rows(rows, np.exp(log_p) * (log_p - shifted + log_total[rows]), count)
    log_mass = sketch.tail_log_mass[block].astype(np.float64)
    log_tail = np.log(tail) - log_total
    mass = np.exp(log_mass)
    coarse += np.where(mass > 0, mass * (log_mass - log_tail), 0.0)

    rows, inside = _members(sketch.tail_ends, block)
    ids = sketch.tail_ids[inside]
    log_q = logits[rows, ids].astype(np.float64) - greatest[rows] - log_total[rows]
    log_r = (log_q - log_tail[rows]) - (sketch.tail_log_p[inside] - log_mass[rows])
    weight = 1 / (1 + np.maximum(coarse, 0) / _CLOSE)
    estimates = weight[rows] * np.expm1(log_r) - log_r
    drawn = np.bincount(rows, minlength=count)
    within = sum_rows(rows, estimates, count) / np.maximum(drawn, 1)

    kld = coarse + np.where(drawn > 0, mass * within, 0.0)
    nll = log_total + greatest - logits[each, targets]
    return np.maximum(kld, 0.0), nll, top == sketch.top[block]


def _members(ends: NDArray[np.uint32], block: slice) -> tuple[NDArray[np.intp], slice]:
    """Of the entries of the block's rows: which row of the block each belongs to, and where they
    all lie."""
    begin = int(ends[block.start - 1]) if block.start else 0
    here = ends[block].astype(np.int64)
    lengths = np.diff(here, prepend=begin)
    return np.repeat(np.arange(len(here)), lengths), slice(begin, int(here[-1]))


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, kind)
