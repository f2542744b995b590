"""Experts and routers of one layer against the reference's: gone, moved, or renumbered. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moestro.engine.llama_cpp.row_samples import is_router
from moestro.verify.fingerprint import Fingerprint, TensorPrint
from moestro.verify.unit_errors import (
    ROUNDING,
    Floats,
    comparable,
    expected_error,
    least_size,
    unit_errors,
    unit_limit,
    vectors,
)

MUCH_CLOSER = 0.5
"""A unit has moved if another of the reference's is at less than this part of the distance."""

Pair = tuple[TensorPrint, TensorPrint]


@dataclass(frozen=True, slots=True)
class LayerExperts:
    """What became of a layer's experts. `moved` maps an expert to the reference's expert whose
    weights it holds; `tensors` names the tensors where that was seen, or where experts are `gone`.
    `renumbered`: the router's rows moved along, so that nothing but the numbers is different."""

    layer: int
    gone: tuple[int, ...]
    moved: Mapping[int, int]
    tensors: tuple[str, ...]
    renumbered: bool


def has_units_of_experts(tensor: TensorPrint) -> bool:
    return "exps" in tensor.name and len(tensor.shape) in (2, 3) and (
        len(tensor.norms) == tensor.shape[-1] > 1
    )  # fmt: skip


def layers_of_experts(reference: Fingerprint, candidate: Fingerprint) -> list[LayerExperts]:
    """Of the layers where experts are not what and where they were."""
    pairs: dict[int, list[Pair]] = defaultdict(list)
    for tensor in candidate.tensors:
        before = reference.by_name.get(tensor.name)
        wanted = has_units_of_experts(tensor) or is_router(tensor.name)
        if before is not None and tensor.layer is not None and wanted:
            pairs[tensor.layer].append((before, tensor))
    found = (_layer(layer, layer_pairs) for layer, layer_pairs in sorted(pairs.items()))
    return [layer for layer in found if layer.gone or layer.moved]


def _layer(layer: int, pairs: Sequence[Pair]) -> LayerExperts:
    gone: set[int] = set()
    moves: dict[int, Counter[int]] = defaultdict(Counter)
    tensors = []
    for before, now in pairs:
        if not has_units_of_experts(now) or not comparable(before, now):
            continue
        errors = unit_errors(before, now)
        lost = {int(unit) for unit in np.flatnonzero(np.isinf(errors))}
        moved = _moved(before, now, errors)
        gone |= lost
        for unit, origin in moved.items():
            moves[unit][origin] += 1
        if lost or moved:
            tensors.append(now.name)
    settled = {unit: origins.most_common(1)[0][0] for unit, origins in sorted(moves.items())}
    together = bool(settled) and not gone and _moved_together(pairs, settled)
    return LayerExperts(layer, tuple(sorted(gone)), settled, tuple(tensors), together)


def _moved(before: TensorPrint, now: TensorPrint, errors: Floats) -> dict[int, int]:
    """Units that are much closer to another of the reference's units than to their own.

    Rounding alone can do that only to experts that are nearly copies of each other, so they have
    to be further from their own than twice what the types explain.
    """
    expected = expected_error(before, now)
    suspects = np.flatnonzero(np.isfinite(errors) & (errors > 2 * expected + ROUNDING))
    if not suspects.size:
        return {}
    a, b = vectors(before), vectors(now)[suspects]
    squares = (a * a).sum(axis=1)[None, :] + (b * b).sum(axis=1)[:, None] - 2 * b @ a.T
    sizes = np.maximum(before.norms.astype(np.float64), max(least_size(before), 1e-300))
    distances = np.sqrt(np.maximum(squares, 0)) / sizes
    nearest = distances.argmin(axis=1)
    closest = distances.min(axis=1)
    limit = min(unit_limit(expected), 1.0)
    sure = (closest < MUCH_CLOSER * errors[suspects]) & (closest <= limit) & (nearest != suspects)
    return {int(suspects[i]): int(nearest[i]) for i in np.flatnonzero(sure)}


def _moved_together(pairs: Sequence[Pair], moved: Mapping[int, int]) -> bool:
    """Whether all tensors of a layer's experts, and its router, agree with one new order."""
    for before, now in pairs:
        if not comparable(before, now):
            return False
        count = len(now.norms)
        order = [moved.get(unit, unit) for unit in range(count)]
        if sorted(order) != list(range(count)):
            return False
        limit = unit_limit(expected_error(before, now))
        if (unit_errors(before, now, order) > limit).any():
            return False
    return any(is_router(now.name) for _, now in pairs)
