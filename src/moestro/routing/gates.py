"""Gate weights as shares: how much of a token's expert output comes from each chosen expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class GateShares:
    """`shares` [T, used] sum to 1 in each row where `given`, and are zero elsewhere: rows whose
    weights are all zero, and `broken` ones, which hold a NaN or an infinity."""

    shares: Floats
    given: Bools
    broken: Bools


def gate_shares(weights: NDArray[np.floating[Any]]) -> GateShares:
    """From gate weights [T, used], whatever they are scaled by."""
    values = weights.astype(np.float64)
    broken: Bools = broken_rows(values)
    values[broken] = 0.0
    np.maximum(values, 0.0, out=values)
    total = row_sums(values)
    given: Bools = total > 0
    values /= np.where(given, total, 1.0)[:, None]
    return GateShares(values, given, broken)


def row_sums(values: Floats) -> Floats:
    """Over rows that are often short, for which this is several times faster than `sum`."""
    found: Floats = np.einsum("ij->i", values)
    return found


def broken_rows(values: Floats) -> Bools:
    """Rows with a NaN or an infinity: so has their sum, as 32-bit values cannot overflow it."""
    with np.errstate(invalid="ignore"):
        return np.logical_not(np.isfinite(row_sums(values)))
