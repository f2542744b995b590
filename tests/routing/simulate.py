"""Routers without a model: logits in, the selection an engine would make out."""

from __future__ import annotations

import numpy as np

from moestro.routing.sample import LayerSample, sample
from moestro.routing.scores import router_distribution


def route(logits, used: int, gating: str = "softmax", bias=0.0) -> LayerSample:
    """Top-`used` of the scores plus `bias`; weights are the scores, normalised."""
    logits = np.asarray(logits, dtype=np.float32)
    scores = router_distribution(logits, gating)
    chosen = np.argsort(-(scores + bias), axis=1, kind="stable")[:, :used].astype(np.int32)
    weights = np.take_along_axis(scores, chosen, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    return sample(logits, chosen, weights.astype(np.float32))


def chosen_only(chosen, experts: int) -> LayerSample:
    """A sample without logits, each chosen expert with the same weight."""
    chosen = np.asarray(chosen)
    weights = np.full(chosen.shape, 0.5, dtype=np.float32)
    nothing = np.zeros((0, experts), dtype=np.float32)
    return LayerSample(chosen, weights, nothing, np.zeros(0, dtype=np.int64))


def permuted(given: LayerSample, order) -> LayerSample:
    """The same routing with expert e called order[e]."""
    order = np.asarray(order)
    logits = np.empty_like(given.logits)
    logits[:, order] = given.logits
    return LayerSample(order[given.chosen], given.weights, logits, given.rows)


def clumped_counts(generator, chunks: int, mean, clump: float, spread: float):
    """Selections [chunks, experts] that come in clumps, at rates that vary from chunk to chunk.

    `mean` [experts] per chunk; `clump` is the mean size of a clump (geometric), `spread` the
    coefficient of variation of the rate.
    """
    rates = np.outer(np.ones(chunks), mean)
    if spread:
        rates = rates * generator.gamma(1 / spread**2, spread**2, size=rates.shape)
    clumps = generator.poisson(rates / clump)
    extra = generator.negative_binomial(np.maximum(clumps, 1), 1 / clump) if clump > 1 else 0
    return np.where(clumps > 0, clumps + extra, 0).astype(float)
