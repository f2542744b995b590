"""What a router says about all experts, from its logits: a distribution for each token."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moestro.errors import ModelError
from moestro.routing.gates import broken_rows, row_sums

Floats = NDArray[np.float64]

GATINGS = frozenset({"softmax", "sigmoid", "softmax-of-chosen", "sqrt-softplus", "unknown"})
"""The words of `model.Experts.gating`; unknown is taken as softmax."""


def check_gating(gating: str) -> None:
    """Raises ModelError for a word that is none of `GATINGS`."""
    if gating not in GATINGS:
        raise ModelError(
            f"No router is known that scores by “{gating[:40]}”.",
            hint="Known are " + ", ".join(sorted(GATINGS)) + ".",
        )


def router_distribution(logits: ArrayLike, gating: str) -> Floats:
    """Rows [R, experts] that sum to 1, from router logits of the same shape.

    Scores that are no distribution (sigmoid, √softplus) are divided by their sum. Where the softmax
    runs over the chosen experts only, this is the one over all of them, of which the engine's is a
    part. Rows with a NaN or an infinity become NaN.
    """
    found: Floats = np.exp(log_router_distribution(logits, gating))
    return found


def log_router_distribution(logits: ArrayLike, gating: str) -> Floats:
    """Natural logarithms of `router_distribution`, exact where its values are too small to hold."""
    check_gating(gating)
    values = np.array(logits, dtype=np.float64, ndmin=2)
    broken = broken_rows(values)
    values[broken] = 0.0
    if gating == "sigmoid":
        values = -_softplus(-values)
    elif gating == "sqrt-softplus":
        # Far below zero softplus(x) is eˣ, which a float cannot hold but its logarithm can.
        values = 0.5 * np.where(values < -30, values, np.log(_softplus(np.maximum(values, -30))))
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(row_sums(np.exp(values)))[:, None]
    values[broken] = np.nan
    return values


def entropies(shares: Floats, logs: Floats) -> Floats:
    """Shannon's entropy of each row [R, experts], in nats, from shares and their logarithms; NaN
    for rows that are NaN."""
    found: Floats = np.einsum("ij,ij->i", shares, logs)
    return -found


def divergences(shares: Floats, logs: Floats, candidate_logs: Floats) -> Floats:
    """KL(reference‖candidate) of each row, in nats (Kullback and Leibler 1951); NaN where either
    row is."""
    found: Floats = np.einsum("ij,ij->i", shares, logs - candidate_logs)
    # Rounding may leave −1e-17.
    return np.maximum(found, 0.0)


def _softplus(values: Floats) -> Floats:
    return np.maximum(values, 0.0) + np.log1p(np.exp(-np.abs(values)))
