"""What is kept of a verification's routing: enough to draw it, without the models."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moestro.routing.interval import Interval
    from moestro.routing.paired import LayerPair, PairedRouting
    from moestro.verify.verdict import Verification


def routing_record(found: Verification) -> dict[str, Any]:
    """JSON; `routing` is None for a model without experts, or where they could not be compared."""
    return {
        "verdict": str(found.verdict),
        "candidate": found.candidate.name,
        "reference": found.reference.name,
        "policy": found.policy.name,
        "tokens": found.tokens,
        "domains": list(found.domains),
        "kld_mean": _value(found.divergence.kld_mean) if found.divergence else None,
        "top1_agreement": _value(found.divergence.top1_agreement) if found.divergence else None,
        "routing": _routing(found.routing) if found.routing is not None else None,
    }


def _routing(found: PairedRouting) -> dict[str, Any]:
    return {
        "experts": found.candidate.experts,
        "used": found.candidate.used,
        "overlap": _value(found.overlap),
        "router_kl": _value(found.router_kl),
        "chance_overlap": found.chance_overlap,
        "layers": [_layer(layer) for layer in found.layers],
    }


def _layer(layer: LayerPair) -> dict[str, Any]:
    """Loads as multiples of the average: 1 where all experts are equally busy."""
    experts = len(layer.load)
    return {
        "layer": layer.layer,
        "overlap": _value(layer.overlap),
        "router_kl": _value(layer.router_kl),
        "effective_experts": _known(layer.effective_experts),
        "effective_experts_reference": _known(layer.effective_experts_reference),
        "max_load": _known(layer.max_load),
        "load_shift": _known(layer.load_shift),
        "lost": list(layer.dead_only_in_candidate),
        "load": _loads(layer.load, experts),
        "load_reference": _loads(layer.load_reference, experts),
    }


def _loads(shares: Iterable[float], experts: int) -> list[float | None]:
    return [_known(float(share) * experts, 3) for share in shares]


def _value(found: Interval | None) -> float | None:
    return _known(found.value) if found is not None else None


def _known(value: float, digits: int = 6) -> float | None:
    """Short, and never NaN: JSON has none."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
