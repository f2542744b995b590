"""What one layer's router decided over the tokens of one chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.errors import ModelError
from moestro.routing.scores import router_distribution

__all__ = ["ROUTER_STRIDE", "LayerSample", "router_distribution", "sample"]

ROUTER_STRIDE = 8
"""Logits are kept of every eighth token. Selections are kept of all: they are small, and they are
what the model does; logits only say how sure it was."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerSample:
    """One block with routed experts over T tokens. T may be smaller than the chunk, even 0: some
    architectures compute the last block for the output tokens only."""

    chosen: NDArray[np.integer[Any]]
    """[T, used] expert numbers, in the engine's order."""

    weights: NDArray[np.floating[Any]]
    """[T, used] what the experts' outputs are multiplied with, after normalisation and scaling."""

    logits: NDArray[np.floating[Any]]
    """[R, experts] router logits of the tokens `rows`."""

    rows: NDArray[np.integer[Any]]
    """[R] positions in `chosen`, ascending."""

    @property
    def tokens(self) -> int:
        return len(self.chosen)


def sample(
    logits: NDArray[np.floating[Any]],
    chosen: NDArray[np.integer[Any]],
    weights: NDArray[np.floating[Any]],
) -> LayerSample:
    """A copy that stays: `chosen` and `weights` [T, used] whole, of `logits` [T, experts] every
    `ROUTER_STRIDE`-th row."""
    rows = np.arange(0, len(logits), ROUTER_STRIDE)
    return LayerSample(chosen.copy(), weights.copy(), logits[::ROUTER_STRIDE].copy(), rows)


def check_sample(layer: int, given: LayerSample, experts: int, used: int) -> None:
    """Samples also come from files of other people.

    Raises:
        ModelError: shapes that do not belong together, or experts that do not exist.
    """
    chosen, rows = given.chosen, given.rows
    if (
        chosen.shape != (len(chosen), used)
        or given.weights.shape != chosen.shape
        or rows.ndim != 1
        or given.logits.shape != (len(rows), experts)
        or not np.issubdtype(chosen.dtype, np.integer)
        or not np.issubdtype(rows.dtype, np.integer)
    ):
        raise _wrong(
            f"The routing of block {layer} does not have the shape of {used} of {experts} experts."
        )
    if chosen.size and (chosen.min() < 0 or chosen.max() >= experts):
        raise _wrong(f"The routing of block {layer} names an expert that is none of {experts}.")
    if rows.size and (rows[0] < 0 or rows[-1] >= len(chosen) or not ascending(rows)):
        raise _wrong(f"The router logits of block {layer} belong to tokens that are not there.")


def check_aligned(layer: int, reference: LayerSample, candidate: LayerSample) -> None:
    """Raises ModelError if the two are not of the same tokens."""
    if reference.tokens != candidate.tokens or not np.array_equal(reference.rows, candidate.rows):
        raise _wrong(f"The routing of block {layer} covers other tokens than the reference's.")


def ascending(rows: NDArray[np.integer[Any]]) -> bool:
    return bool(np.all(rows[1:] > rows[:-1]))


def _wrong(sentence: str) -> ModelError:
    return ModelError(
        sentence,
        hint="Make the reference file again with this version of moestro.",
        code="routing-invalid",
    )
