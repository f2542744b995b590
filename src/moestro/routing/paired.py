"""Two models on the same tokens: does the candidate route as its reference does?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.errors import ModelError
from moestro.routing import load as loads
from moestro.routing.agreement import Agreement, agreement
from moestro.routing.groups import GroupSums
from moestro.routing.interval import Interval, bootstrap, bootstrap_mean, ratio
from moestro.routing.profile import RoutingProfile, RoutingTally
from moestro.routing.sample import LayerSample, check_aligned
from moestro.routing.unseen import design_effect, lost

Floats = NDArray[np.float64]

NEAR_TIE = 0.05
"""A selection is nearly a tie if the logit of the last chosen expert is less than this above the
first one left out: their scores then differ by less than 5 %."""

MOST_UNEXPLAINED = 0.005
"""Where more than this share of selections goes against the logits, something else takes part in
them (a bias, groups of experts, a table), and ties cannot be seen in the logits."""

_LOAD_RESAMPLES = 500

# Columns of a group's sums.
_COLUMNS = 12
(
    _OVERLAP, _TOKENS, _MASS, _WEIGHED, _KL, _SCORED,
    _CLEAR_OVERLAP, _CLEAR, _NEAR_OVERLAP, _NEAR, _UNEXPLAINED, _MARGINS,
) = range(_COLUMNS)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LayerPair:
    """One layer of both models. docs/concepts/routing.md explains each figure."""

    layer: int
    """The block's number in the file."""

    tokens: int
    overlap: Interval
    """Mean share of chosen experts that both chose."""

    overlap_clear: Interval | None
    """The same where the reference's choice was no near tie; None where that cannot be seen."""

    overlap_near_ties: Interval | None
    near_tie_share: float | None
    gate_mass_overlap: Interval | None
    router_kl: Interval | None
    """Mean KL(reference‖candidate) of the routers' distributions, in nats."""

    effective_experts: float
    effective_experts_reference: float
    effective_experts_ratio: Interval | None
    """Candidate over reference, on the same tokens."""

    max_load: float
    max_load_reference: float
    load_shift: float
    """Total variation distance of the loads."""

    dead_only_in_candidate: tuple[int, ...]
    load: Floats
    """[experts] of the candidate; sums to 1."""

    load_reference: Floats

    def to_json(self) -> dict[str, Any]:
        intervals = {
            "overlap": self.overlap,
            "overlap_clear": self.overlap_clear,
            "overlap_near_ties": self.overlap_near_ties,
            "gate_mass_overlap": self.gate_mass_overlap,
            "router_kl": self.router_kl,
            "effective_experts_ratio": self.effective_experts_ratio,
        }
        return {
            "layer": self.layer,
            "tokens": self.tokens,
            **_values(intervals),
            "near_tie_share": self.near_tie_share,
            "effective_experts": self.effective_experts,
            "effective_experts_reference": self.effective_experts_reference,
            "max_load": self.max_load,
            "max_load_reference": self.max_load_reference,
            "load_shift": self.load_shift,
            "dead_only_in_candidate": list(self.dead_only_in_candidate),
            "intervals": _ends(intervals),
        }


@dataclass(frozen=True, slots=True, eq=False)
class PairedRouting:
    """All layers of both models. `overlap` and the like are means over tokens and layers;
    `reference` and `candidate` hold what each does by itself."""

    overlap: Interval
    overlap_clear: Interval | None
    overlap_near_ties: Interval | None
    near_tie_share: float | None
    gate_mass_overlap: Interval | None
    router_kl: Interval | None
    overlap_by_domain: dict[str, Interval]
    drift_by_depth: Interval | None
    """How much more of the selections differ in the last layer than in the first, by a straight
    line through all of them; None with a single layer."""

    layers: tuple[LayerPair, ...]
    reference: RoutingProfile
    candidate: RoutingProfile

    @property
    def chance_overlap(self) -> float:
        """What two routers without anything in common would reach."""
        fewer, more = sorted((self.reference.used, self.candidate.used))
        return fewer / self.reference.experts if more else 0.0

    @property
    def worst_layer(self) -> LayerPair:
        """The layer with the least overlap."""
        return min(self.layers, key=lambda layer: layer.overlap.value)

    def to_json(self) -> dict[str, Any]:
        intervals = {
            "overlap": self.overlap,
            "overlap_clear": self.overlap_clear,
            "overlap_near_ties": self.overlap_near_ties,
            "gate_mass_overlap": self.gate_mass_overlap,
            "router_kl": self.router_kl,
            "drift_by_depth": self.drift_by_depth,
        }
        return {
            **_values(intervals),
            "near_tie_share": self.near_tie_share,
            "chance_overlap": self.chance_overlap,
            "overlap_by_domain": {
                domain: found.to_json() for domain, found in self.overlap_by_domain.items()
            },
            "intervals": _ends(intervals),
            "layers": [layer.to_json() for layer in self.layers],
            "reference": self.reference.to_json(),
            "candidate": self.candidate.to_json(),
        }


class PairedTally:
    """Takes samples of both models chunk by chunk and keeps sums of them."""

    def __init__(
        self,
        experts: int,
        used: int,
        gating_reference: str,
        gating_candidate: str | None = None,
        used_candidate: int | None = None,
    ) -> None:
        """The candidate is taken to score, and to choose as many, as the reference does where
        nothing else is said."""
        self._reference = RoutingTally(experts, used, gating_reference)
        self._candidate = RoutingTally(
            experts,
            used if used_candidate is None else used_candidate,
            gating_reference if gating_candidate is None else gating_candidate,
        )
        self._sums = GroupSums()

    def add(
        self, block: int, chunk: int, domain: str, reference: LayerSample, candidate: LayerSample
    ) -> None:
        """Block number `block` of both models over the same tokens of chunk number `chunk`.

        Raises:
            ModelError: the samples do not fit the models, or each other.
        """
        before = self._reference.read(block, reference)
        after = self._candidate.read(block, candidate)
        check_aligned(block, reference, candidate)
        if not reference.tokens:
            return
        self._reference.add_reading(block, chunk, domain, before)
        self._candidate.add_reading(block, chunk, domain, after)
        found = agreement(before, after)
        self._sums.add(block, chunk, domain, _sums_of(found))

    @property
    def kept(self) -> tuple[GroupSums, ...]:
        """All that is kept of what was added."""
        return self._sums, self._reference.kept, self._candidate.kept

    @property
    def tokens(self) -> int:
        """Of the layer that saw most; 0 before anything was added."""
        return max((int(self._reference.tokens(n).sum()) for n in self._sums.layers), default=0)

    def result(self) -> PairedRouting:
        """
        Raises:
            ModelError: no token was added.
        """
        if not self._sums.layers:
            raise ModelError("Neither model routed a token.", code="routing-empty")
        by_layer = {layer: self._sums.matrix(layer) for layer in self._sums.layers}
        total = np.sum(list(by_layer.values()), axis=0)
        visible = [sums for sums in by_layer.values() if _ties_visible(sums)]
        seen = np.sum(visible, axis=0) if visible else np.zeros_like(total)
        domains = np.asarray(self._sums.domains, dtype=object)
        return PairedRouting(
            overlap=_known(_mean(total, _OVERLAP, _TOKENS)),
            overlap_clear=_mean(seen, _CLEAR_OVERLAP, _CLEAR),
            overlap_near_ties=_mean(seen, _NEAR_OVERLAP, _NEAR),
            near_tie_share=_near_share(seen),
            gate_mass_overlap=_mean(total, _MASS, _WEIGHED),
            router_kl=_mean(total, _KL, _SCORED),
            overlap_by_domain={
                domain: _known(_mean(total[domains == domain], _OVERLAP, _TOKENS))
                for domain in sorted(set(self._sums.domains))
            },
            drift_by_depth=_drift(by_layer),
            layers=tuple(self._layer(layer, sums) for layer, sums in by_layer.items()),
            reference=self._reference.profile(),
            candidate=self._candidate.profile(),
        )

    def _layer(self, layer: int, sums: Floats) -> LayerPair:
        before, after = self._reference.counts(layer), self._candidate.counts(layer)
        tokens = sums[:, _TOKENS]
        reference, candidate = before.sum(axis=0), after.sum(axis=0)
        visible = _ties_visible(sums)
        return LayerPair(
            layer=layer,
            tokens=int(tokens.sum()),
            overlap=_known(_mean(sums, _OVERLAP, _TOKENS)),
            overlap_clear=_mean(sums, _CLEAR_OVERLAP, _CLEAR) if visible else None,
            overlap_near_ties=_mean(sums, _NEAR_OVERLAP, _NEAR) if visible else None,
            near_tie_share=_near_share(sums) if visible else None,
            gate_mass_overlap=_mean(sums, _MASS, _WEIGHED),
            router_kl=_mean(sums, _KL, _SCORED),
            effective_experts=float(loads.effective_experts(candidate)),
            effective_experts_reference=float(loads.effective_experts(reference)),
            effective_experts_ratio=_effective_ratio(before, after),
            max_load=float(loads.max_over_mean(candidate)),
            max_load_reference=float(loads.max_over_mean(reference)),
            load_shift=float(loads.shift(reference, candidate)),
            dead_only_in_candidate=lost(
                reference, candidate, float(tokens.sum()), design_effect(before, tokens),
                self._reference.hypotheses,
            ),
            load=loads.shares(candidate),
            load_reference=loads.shares(reference),
        )  # fmt: skip


def _sums_of(found: Agreement) -> Floats:
    row = np.zeros(_COLUMNS)
    row[_OVERLAP], row[_TOKENS] = found.overlap.sum(), len(found.overlap)
    row[_MASS], row[_WEIGHED] = found.gate_mass.sum(), len(found.gate_mass)
    row[_KL], row[_SCORED] = found.router_kl.sum(), len(found.router_kl)
    margins = found.margins
    near = margins.values < NEAR_TIE
    row[_CLEAR_OVERLAP], row[_CLEAR] = margins.overlap[~near].sum(), np.count_nonzero(~near)
    row[_NEAR_OVERLAP], row[_NEAR] = margins.overlap[near].sum(), np.count_nonzero(near)
    row[_MARGINS], row[_UNEXPLAINED] = len(near), margins.unexplained
    return row


def _mean(sums: Floats, top: int, bottom: int) -> Interval | None:
    bounds = (0.0, math.inf if top == _KL else 1.0)
    return bootstrap_mean(sums[:, top], sums[:, bottom], bounds=bounds)


def _known(found: Interval | None) -> Interval:
    assert found is not None  # only layers, domains and groups with tokens are kept
    return found


def _ties_visible(sums: Floats) -> bool:
    margins, unexplained = sums[:, _MARGINS].sum(), sums[:, _UNEXPLAINED].sum()
    return bool(margins > 0 and unexplained <= MOST_UNEXPLAINED * (margins + unexplained))


def _near_share(sums: Floats) -> float | None:
    rows = sums[:, _MARGINS].sum()
    return float(sums[:, _NEAR].sum() / rows) if rows else None


def _drift(by_layer: dict[int, Floats]) -> Interval | None:
    """The slope of 1 − overlap over depth by least squares; depth is 0 in the first layer with
    experts and 1 in the last."""
    layers = np.asarray(list(by_layer), dtype=np.float64)
    if len(layers) < 2:
        return None
    depth = (layers - layers[0]) / (layers[-1] - layers[0])
    depth -= depth.mean()
    leaning = depth / (depth @ depth)
    pairs = [sums[:, [_OVERLAP, _TOKENS]] for sums in by_layer.values()]

    def slope(columns: Floats) -> Floats:
        means = [ratio(columns[:, 2 * n : 2 * n + 2]) for n in range(len(pairs))]
        return np.asarray(-np.stack(means, axis=1) @ leaning)

    return bootstrap(np.concatenate(pairs, axis=1), slope)


def _effective_ratio(reference: Floats, candidate: Floats) -> Interval | None:
    """From selections [groups, experts] of both. They are drawn together, so what the text does to
    both cancels."""
    experts = reference.shape[1]

    def compare(columns: Floats) -> Floats:
        before, after = columns[:, :experts], columns[:, experts:]
        return np.exp(loads.entropy(after) - loads.entropy(before))

    columns = np.concatenate([reference, candidate], axis=1)
    return bootstrap(columns, compare, resamples=_LOAD_RESAMPLES)


def _values(intervals: dict[str, Interval | None]) -> dict[str, float | None]:
    return {name: found.value if found else None for name, found in intervals.items()}


def _ends(intervals: dict[str, Interval | None]) -> dict[str, list[float | None] | None]:
    return {name: [found.low, found.high] if found else None for name, found in intervals.items()}
