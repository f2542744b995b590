"""How evenly work falls on experts. A load is each expert's share of all selections; it sums to 1.

Every function takes counts or shares [..., experts] and looks along the last axis. Where nothing
was selected the result is NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shares(counts: Floats) -> Floats:
    """[..., experts], each row divided by its sum."""
    total = counts.sum(axis=-1, keepdims=True)
    unknown = np.full(counts.shape, np.nan)
    return np.asarray(np.divide(counts, total, out=unknown, where=total > 0))


def entropy(counts: Floats) -> Floats:
    """H = −Σ p ln p in nats (Shannon 1948), from 0 to ln(experts)."""
    load = shares(counts)
    found = -(load * np.log(np.where(load > 0, load, 1.0))).sum(axis=-1)
    return np.asarray(np.maximum(found, 0.0))


def effective_experts(counts: Floats) -> Floats:
    """exp(H), from 1 to the number of experts: as many equally busy experts would have the same
    entropy (Hill 1973, the number of order 1; the perplexity of the load)."""
    return np.exp(entropy(counts))


def evenness(counts: Floats) -> Floats:
    """H / ln(experts), from 0 to 1 (Pielou 1966). A single expert is even."""
    experts = counts.shape[-1]
    if experts == 1:
        return np.ones(counts.shape[:-1])
    return entropy(counts) / math.log(experts)


def gini(counts: Floats) -> Floats:
    """Gini's coefficient: 0 if all are equally busy, 1 − 1/experts if one does everything."""
    load = np.sort(shares(counts), axis=-1)
    experts = load.shape[-1]
    ranks = 2.0 * np.arange(1, experts + 1) - experts - 1
    return np.asarray((load * ranks).sum(axis=-1) / experts)


def busiest_share(counts: Floats) -> Floats:
    """The share of selections that go to the busiest tenth of the experts (at least to one)."""
    load = np.sort(shares(counts), axis=-1)
    tenth = max(1, math.ceil(load.shape[-1] / 10))
    return np.asarray(load[..., -tenth:].sum(axis=-1))


def max_over_mean(counts: Floats) -> Floats:
    """The busiest expert's load over the average one, from 1 to experts / used."""
    return np.asarray(shares(counts).max(axis=-1) * counts.shape[-1])


def shift(reference: Floats, candidate: Floats) -> Floats:
    """½ Σ |p − q|, the total variation distance: the share of selections that would have to go
    elsewhere to make one load the other, from 0 to 1."""
    return np.asarray(np.abs(shares(reference) - shares(candidate)).sum(axis=-1) / 2)
