"""Sums of exponentials over rows of logits: in float32, but exact where the mass lies.

Two models that differ little differ in the seventh digit of such sums, where float32 ends. Nearly
all of a sum is a few tokens, so these are summed in float64 from the logits themselves, and only
the rest of the vocabulary in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_FLOORS = (-7.0, -4.0, -2.0, -1.0)
"""Distance from the greatest logit, in nats, down to which a token is summed in float64."""
_BLOCK_VALUES = 1 << 16
"""Logits worked on at once: five float32 arrays of this size stay in the cache of one core."""


def row_blocks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Consecutive rows that are worked on together: many of a small vocabulary, one of a large."""
    step = max(1, _BLOCK_VALUES // max(vocabulary, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def likely_tokens(shifted: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the tokens that hold most of the mass.

    `shifted` [R, V] are logits less the greatest of their row. A row with so many likely tokens
    that float64 would be slow gets none: each then holds little, and rounding averages out.
    """
    rows, vocabulary = shifted.shape
    most = max(256, vocabulary // 32)
    floor = np.full((rows, 1), _FLOORS[0], np.float32)
    flat = np.flatnonzero(shifted > floor)
    for higher in (*_FLOORS[1:], np.inf):
        many = np.bincount(flat // vocabulary, minlength=rows) > most
        if not many.any():
            break
        floor[many] = higher
        flat = np.flatnonzero(shifted > floor)
    return flat // vocabulary, flat % vocabulary


def sum_rows(
    rows: NDArray[np.intp], values: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Sum of the values that belong to each of `count` rows."""
    sums: NDArray[np.float64] = np.bincount(rows, values, count).astype(np.float64, copy=False)
    return sums
