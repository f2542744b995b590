"""How far a tensor is from the reference's, unit by unit, told from two fingerprints. Pure.

With the sketches S of `row_samples`, ‖S(a) − S(b)‖² is an unbiased estimate of ‖a − b‖², good to
√(2/d): 25 % for the 32 numbers of most units, 18 % for the 64 of a router's row, half of that for
the distance itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestro.verify.fingerprint import TensorPrint
from moestro.verify.type_errors import explained_error

Floats = NDArray[np.float64]

ROUNDING = 0.004
"""What no type explains and yet means nothing: a source that was rounded to BF16 on its way (at
most 2⁻⁹ each), and the 16 bits in which sketches are kept."""
UNIT_FACTOR, TENSOR_FACTOR = 4.0, 3.0
"""Times the type's own error: 3 for tails and importance (`type_errors`), and for one unit the
estimate's spread on top. Clean quantizations of the demo model and of SmolLM2 in 22 types, with
even and with very uneven importances, stay below 2.4 and 1.5 times, the IQ1 and IQ2 types below 0.9
of the limits."""
MOST_EXPLAINED = 1.15
"""Independent weights of the same size are √2 apart: never explained, whatever the type."""
LEAST_SIZE = 0.01
"""Of a unit against the median one: errors of smaller units are measured by this size."""
GONE = 1e-3
"""A unit that has shrunk to less than this part of itself is zero for all purposes."""


def comparable(reference: TensorPrint, candidate: TensorPrint) -> bool:
    """Whether both have the same shape and finite samples of the same rows."""
    return bool(
        _trimmed(reference.shape) == _trimmed(candidate.shape)
        and reference.sketch.shape == candidate.sketch.shape
        and len(reference.norms)
        and np.isfinite(reference.norms).all()
        and np.isfinite(candidate.norms).all()
    )


def unit_errors(
    reference: TensorPrint,
    candidate: TensorPrint,
    order: Sequence[int] | None = None,
    *,
    free_scale: bool = False,
) -> Floats:
    """‖a − b‖ / ‖a‖ of each unit [units]; of a unit that is gone infinite.

    `order` tells each of the candidate's units which of the reference's to compare it with, the
    same one by default. With `free_scale` b may be multiplied by whatever fits best: formats with
    a tensor of scales keep the rest of the number elsewhere.
    """
    a, b = vectors(reference), vectors(candidate)
    sizes, new_sizes = reference.norms.astype(np.float64), candidate.norms.astype(np.float64)
    floor = least_size(reference)
    if order is not None:
        a, sizes = a[list(order)], sizes[list(order)]
    if free_scale:
        square = (b * b).sum(axis=1)
        fit = (a * b).sum(axis=1) / np.where(square > 0, square, 1)
        b = b * fit[:, None]
    errors = np.linalg.norm(a - b, axis=1) / np.maximum(np.maximum(sizes, floor), 1e-300)
    lost = (sizes > floor) & (new_sizes < GONE * sizes)
    return np.asarray(np.where(lost, np.inf, errors), dtype=np.float64)


def row_cosines(reference: TensorPrint, candidate: TensorPrint, errors: Floats) -> Floats:
    """Of each unit and the reference's [units], given their `unit_errors`: from the distance, which
    is known better than the angle between two sketches. Zero where a unit is gone."""
    a, b = reference.norms.astype(np.float64), candidate.norms.astype(np.float64)
    there = (a > 0) & (b > 0) & np.isfinite(errors)
    distance = np.where(there, errors, 0) * np.maximum(a, least_size(reference))
    cosines = (a**2 + b**2 - distance**2) / np.where(there, 2 * a * b, 1)
    return np.clip(np.where(there, cosines, 0.0), -1.0, 1.0)


def said_of_cosines(cosines: Floats) -> str:
    below = int((cosines < 0.999).sum()), int((cosines < 0.99).sum())
    return (
        f"least row cosine {cosines.min():.4f}, of {cosines.size} rows {below[0]} below 0.999 and "
        f"{below[1]} below 0.99"
    )


def vectors(tensor: TensorPrint) -> Floats:
    """S of each unit, [units, width]."""
    found: Floats = tensor.sketch.astype(np.float64) * tensor.norms.astype(np.float64)[:, None]
    return found


def least_size(tensor: TensorPrint) -> float:
    """Below which a unit's own size no longer says how much an error matters."""
    norms = tensor.norms.astype(np.float64)
    if is_vector(tensor):  # a unit is one value there, which may well be zero
        return float(np.sqrt((norms**2).mean()))
    found = norms[norms > 0]
    return LEAST_SIZE * float(np.median(found)) if found.size else 0.0


def is_vector(tensor: TensorPrint) -> bool:
    """Whether a unit of the tensor is a single value."""
    return len(_trimmed(tensor.shape)) == 1 and len(tensor.norms) == tensor.shape[0]


def expected_error(reference: TensorPrint, candidate: TensorPrint) -> float:
    return explained_error(reference.type, candidate.type)


def unit_limit(expected: float) -> float:
    return min(UNIT_FACTOR * expected, MOST_EXPLAINED) + ROUNDING


def tensor_limit(expected: float) -> float:
    """Of the root mean square over all units."""
    return min(TENSOR_FACTOR * expected, MOST_EXPLAINED) + ROUNDING


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
