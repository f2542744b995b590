"""Experts that only have other numbers: their choices are read in the reference's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestro.routing.sample import LayerSample
from moestro.verify.fingerprint import Fingerprint
from moestro.verify.static_experts import layers_of_experts


def new_numbers(
    reference: Fingerprint, candidate: Fingerprint, experts: int
) -> dict[int, NDArray[np.int32]]:
    """By block, for each of the candidate's experts [experts] its number in the reference; only
    blocks where a router and all its experts have changed places together."""
    found = {}
    for layer in layers_of_experts(reference, candidate):
        if layer.renumbered:
            order = [layer.moved.get(number, number) for number in range(experts)]
            if sorted(order) == list(range(experts)):
                found[layer.layer] = np.asarray(order, dtype=np.int32)
    return found


def in_reference_numbers(
    samples: Mapping[int, LayerSample], numbers: Mapping[int, NDArray[np.int32]]
) -> dict[int, LayerSample]:
    """The samples of the candidate with its experts called as in the reference."""
    return {
        block: _translated(given, numbers[block]) if block in numbers else given
        for block, given in samples.items()
    }


def _translated(given: LayerSample, numbers: NDArray[np.int32]) -> LayerSample:
    if given.logits.shape[1] != len(numbers):
        return given
    logits = np.empty_like(given.logits)
    logits[:, numbers] = given.logits
    return replace(given, chosen=numbers[given.chosen], logits=logits)
