"""A made-up machine on which every figure can be worked out by hand."""

from __future__ import annotations

from typing import Any

from moestro.planning.rates import AttentionRates, Curve, KernelRates, SmallRates, TypeRates

READ = 1e-10
"""Seconds per element with one column, from memory."""
COLUMN = 1e-11
"""Seconds per element that each further column adds."""


def flat(value: float) -> Curve:
    return Curve(((1.0, value),))


def line(first: float, each: float, last: int = 512) -> Curve:
    return Curve(((1.0, first), (float(last), first + (last - 1) * each)))


def type_rates(read: float = READ, bytes_per_element: float = 0.5) -> TypeRates:
    dense = line(read, COLUMN)
    half = Curve(tuple((x, y / 2) for x, y in dense.points))
    return TypeRates(dense, half, dense, dense, half, bytes_per_element, False)


def attention_rates(key: int = 128, value: int = 128, kind: str = "F16") -> AttentionRates:
    return AttentionRates(
        key=key,
        value=value,
        type_k=kind,
        type_v=kind,
        decode=flat(4e-10),
        streams=flat(3e-10),
        few=2e-10,
        prefill=flat(1e-10),
    )


SMALL = ("norm", "l2_norm", "add", "mul", "weigh", "swiglu_split", "rope", "set_rows", "silu",
         "sigmoid", "cont", "soft_max", "sum_rows", "argsort_top_k")  # fmt: skip


def machine(*types: str, **changes: Any) -> KernelRates:
    fields: dict[str, Any] = {
        "device": "CPU",
        "description": "made up",
        "threads": 2,
        "engine_version": "0",
        "measured_at": "2026-01-01T00:00:00+00:00",
        "types": {name: type_rates() for name in types},
        "attention": (attention_rates(),),
        "small": {name: SmallRates(1e-6, 1e-9) for name in SMALL},
        "recurrent": {
            name: flat(1e-9) for name in ("gated_delta_net", "state_scan", "convolution")
        },
        "knee": Curve(((1e6, 1e-10), (1e8, 2e-10))),
        "step": 1e-4,
        "sampling": Curve(((1e4, 1e-4), (1e5, 1e-3))),
    }
    return KernelRates(**{**fields, **changes})
