"""One model: which experts did its routers choose, how evenly, how surely, and for what?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.errors import ModelError
from moestro.routing import load as loads
from moestro.routing.groups import GroupSums
from moestro.routing.interval import Interval, bootstrap_mean
from moestro.routing.preference import Preference, preference
from moestro.routing.reading import Reading, read
from moestro.routing.sample import LayerSample
from moestro.routing.scores import check_gating, entropies
from moestro.routing.unseen import DesignEffect, Unseen, design_effect, unseen

Floats = NDArray[np.float64]

MOST_EXPERTS = 2**15 - 1

# Columns of a group's sums, after the selections of each expert.
_COLUMNS = 7
_TOKENS, _TOP, _WEIGHED, _ENTROPY, _SCORED, _BROKEN_LOGITS, _BROKEN_WEIGHTS = range(_COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class LayerProfile:
    """One layer over all tokens. docs/concepts/routing.md explains each figure."""

    layer: int
    """The block's number in the file."""

    tokens: int
    load: Floats
    """[experts] share of all selections; sums to 1."""

    entropy: float
    """Of the load, in nats."""

    effective_experts: float
    evenness: float
    gini: float
    busiest_share: float
    """Of the busiest tenth of the experts."""

    max_load: float
    """Busiest over average."""

    top_weight: Interval | None
    """Mean share of a token's gate weights that its heaviest expert has."""

    router_entropy: Interval | None
    """Mean entropy of the router's distribution for a token, in nats."""

    unseen: Unseen
    design_effect: DesignEffect | None
    preference: Preference | None

    broken_logits: int
    """Rows of router logits with a NaN or an infinity; they count nowhere else."""

    broken_weights: int
    """Tokens whose gate weights hold a NaN or an infinity."""

    @property
    def dead(self) -> tuple[int, ...]:
        return self.unseen.dead

    def to_json(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "tokens": self.tokens,
            "effective_experts": self.effective_experts,
            "evenness": self.evenness,
            "gini": self.gini,
            "busiest_share": self.busiest_share,
            "max_load": self.max_load,
            "top_weight": self.top_weight.value if self.top_weight else None,
            "router_entropy": self.router_entropy.value if self.router_entropy else None,
            "unseen": list(self.unseen.experts),
            "unseen_at_most": self.unseen.at_most,
            "dead": list(self.dead),
            "preference": self.preference.to_json() if self.preference else None,
            "broken_logits": self.broken_logits,
            "broken_weights": self.broken_weights,
        }


@dataclass(frozen=True, slots=True, eq=False)
class RoutingProfile:
    """`experts` routed experts in each layer, of which a token uses `used`. Layers in which no
    token was seen are not there."""

    experts: int
    used: int
    gating: str
    layers: tuple[LayerProfile, ...]

    @property
    def tokens(self) -> int:
        """Of the layer that saw most."""
        return max((layer.tokens for layer in self.layers), default=0)

    @property
    def broken(self) -> int:
        """Router rows and tokens with a NaN or an infinity, in all layers."""
        return sum(layer.broken_logits + layer.broken_weights for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        return {
            "experts": self.experts,
            "used": self.used,
            "gating": self.gating,
            "tokens": self.tokens,
            "layers": [layer.to_json() for layer in self.layers],
        }


class RoutingTally:
    """Takes samples chunk by chunk and keeps sums of them: memory does not grow with the text."""

    def __init__(self, experts: int, used: int, gating: str) -> None:
        check_gating(gating)
        if not 1 <= used <= experts <= MOST_EXPERTS:
            raise ModelError(f"A router can't choose {used} of {experts} experts.")
        self.experts, self.used, self.gating = experts, used, gating
        self._sums = GroupSums()

    def add(self, block: int, chunk: int, domain: str, sample: LayerSample) -> None:
        """Block number `block` over the tokens of chunk number `chunk`.

        Raises:
            ModelError: the sample does not fit the model.
        """
        self.add_reading(block, chunk, domain, self.read(block, sample))

    def read(self, block: int, sample: LayerSample) -> Reading:
        """
        Raises:
            ModelError: the sample does not fit the model.
        """
        return read(block, sample, self.experts, self.used, self.gating)

    def add_reading(self, block: int, chunk: int, domain: str, reading: Reading) -> None:
        """`add` for what `read` made of a sample."""
        sample, gates = reading.sample, reading.gates
        if not sample.tokens:
            return
        row = np.zeros(self.experts + _COLUMNS)
        row[: self.experts] = np.bincount(sample.chosen.reshape(-1), minlength=self.experts)
        spread = entropies(reading.router, reading.router_logs)
        known = ~np.isnan(spread)
        scalars = row[self.experts :]
        scalars[_TOKENS] = sample.tokens
        scalars[_TOP] = gates.shares.max(axis=1).sum()
        scalars[_WEIGHED] = np.count_nonzero(gates.given)
        scalars[_ENTROPY] = spread[known].sum()
        scalars[_SCORED] = np.count_nonzero(known)
        scalars[_BROKEN_LOGITS] = np.count_nonzero(~known)
        scalars[_BROKEN_WEIGHTS] = np.count_nonzero(gates.broken)
        self._sums.add(block, chunk, domain, row)

    @property
    def kept(self) -> GroupSums:
        """All that is kept of what was added."""
        return self._sums

    @property
    def layers(self) -> list[int]:
        return self._sums.layers

    def counts(self, layer: int) -> Floats:
        """Selections [groups, experts]; a group is a run of chunks of one domain."""
        return self._sums.matrix(layer)[:, : self.experts]

    def tokens(self, layer: int) -> Floats:
        """Tokens [groups]."""
        return self._sums.matrix(layer)[:, self.experts + _TOKENS]

    def profile(self) -> RoutingProfile:
        layers = tuple(self._layer(layer) for layer in self.layers)
        return RoutingProfile(self.experts, self.used, self.gating, layers)

    def _layer(self, layer: int) -> LayerProfile:
        sums = self._sums.matrix(layer)
        counts, scalars = sums[:, : self.experts], sums[:, self.experts :]
        total, tokens = counts.sum(axis=0), scalars[:, _TOKENS]
        effect = design_effect(counts, tokens)
        return LayerProfile(
            layer=layer,
            tokens=int(tokens.sum()),
            load=loads.shares(total),
            entropy=float(loads.entropy(total)),
            effective_experts=float(loads.effective_experts(total)),
            evenness=float(loads.evenness(total)),
            gini=float(loads.gini(total)),
            busiest_share=float(loads.busiest_share(total)),
            max_load=float(loads.max_over_mean(total)),
            top_weight=bootstrap_mean(scalars[:, _TOP], scalars[:, _WEIGHED], bounds=(0, 1)),
            router_entropy=bootstrap_mean(scalars[:, _ENTROPY], scalars[:, _SCORED]),
            unseen=unseen(total, math.fsum(tokens), self.used, effect, self.hypotheses),
            design_effect=effect,
            preference=preference(self._sums.domains, counts),
            broken_logits=int(scalars[:, _BROKEN_LOGITS].sum()),
            broken_weights=int(scalars[:, _BROKEN_WEIGHTS].sum()),
        )

    @property
    def hypotheses(self) -> int:
        """Experts in all layers: so many chances for one to be missed by bad luck."""
        return self.experts * len(self.layers)
