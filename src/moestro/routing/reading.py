"""A sample, checked, with what every statistic of it needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestro.routing.gates import GateShares, gate_shares
from moestro.routing.sample import LayerSample, check_sample
from moestro.routing.scores import log_router_distribution


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """`router` [R, experts] is the router's distribution, `router_logs` its logarithms."""

    sample: LayerSample
    experts: int
    router: NDArray[np.float64]
    router_logs: NDArray[np.float64]
    gates: GateShares


def read(layer: int, sample: LayerSample, experts: int, used: int, gating: str) -> Reading:
    """
    Raises:
        ModelError: the sample does not fit such a model.
    """
    check_sample(layer, sample, experts, used)
    logs = log_router_distribution(sample.logits, gating)
    return Reading(sample, experts, np.exp(logs), logs, gate_shares(sample.weights))
