"""How fast one device computes the operations that models are made of: measured, stored, merged.

All figures are seconds on a machine that nobody else disturbs; `load` says how much slower it was
on the whole while they were measured.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds at some values of one variable. Linear in between, proportional beyond the last
    point with the slope that ends the curve, constant before the first."""

    points: Points

    def at(self, x: float) -> float:
        points = self.points
        if len(points) == 1 or x <= points[0][0]:
            return points[0][1]
        index = min(bisect_right(points, x, key=lambda point: point[0]), len(points) - 1)
        (x0, y0), (x1, y1) = points[index - 1], points[index]
        return max(y0 + (y1 - y0) * (x - x0) / (x1 - x0), 0.0)

    def level(self, x: float) -> float:
        """As `at`, but constant beyond the last point: for rates, not for totals."""
        return self.at(min(x, self.points[-1][0]))

    @staticmethod
    def of(points: Any) -> Curve:
        return Curve(tuple((float(x), float(y)) for x, y in points))


@dataclass(frozen=True, slots=True)
class TypeRates:
    """Products with weights of one tensor type, in seconds per element of the matrix.

    `dense` over the number of columns, with large matrices that come from memory; `dense_cached`
    the same from the processor's cache; `small` with matrices of 512 x 512. `experts` over the rows
    that one expert gets, in a product that picks experts; `experts_small` likewise, with experts of
    512 x 256.
    """

    dense: Curve
    dense_cached: Curve
    small: Curve
    experts: Curve
    experts_cached: Curve
    bytes_per_element: float
    repacked: bool
    experts_small: Curve | None = None


@dataclass(frozen=True, slots=True)
class AttentionRates:
    """Attention with one width of heads, one number of them in the cache (the rows of the cache
    are so much longer, and caches of processors take rows of 1024 bytes badly), four times as many
    queries, and one pair of cache types.

    In seconds per query, head, visible cell and value of key and value. `decode`, one query, over
    the number of cells; `streams` likewise, one query of each of four streams; `few`, four queries
    of one stream at 1024 cells; `prefill`, hundreds of queries, over the cells in front of them.
    """

    key: int
    value: int
    type_k: str
    type_v: str
    decode: Curve
    streams: Curve
    few: float
    prefill: Curve
    kv_heads: int = 4


@dataclass(frozen=True, slots=True)
class SmallRates:
    """An operation without weights: seconds for one of it, and for each of its values."""

    node: float
    element: float


@dataclass(frozen=True)
class KernelRates:
    """Everything measured on one device with one number of threads.

    `knee` is seconds per byte over the size of the weights that are read in turn, `step` the cost
    of starting one graph, `sampling` of choosing one token over the size of the vocabulary,
    `recurrent` per token and state value (convolutions: per channel) over the tokens.
    `spread` is the typical scatter of one figure, relative.
    """

    device: str
    description: str
    threads: int
    engine_version: str
    measured_at: str
    types: Mapping[str, TypeRates] = field(default_factory=dict)
    attention: tuple[AttentionRates, ...] = ()
    small: Mapping[str, SmallRates] = field(default_factory=dict)
    recurrent: Mapping[str, Curve] = field(default_factory=dict)
    knee: Curve | None = None
    step: float = 0.0
    sampling: Curve | None = None
    load: float = 1.0
    spread: float = 0.1

    @property
    def has_common(self) -> bool:
        """Whether the figures are there that every model needs."""
        return bool(self.small) and self.knee is not None and self.sampling is not None

    @property
    def best_bytes_per_second(self) -> float | None:
        """The fastest that weights came from memory for one column, of any type."""
        rates = [t.bytes_per_element / t.dense.at(1) for t in self.types.values()]
        if self.knee is not None:
            rates.append(1 / self.knee.points[-1][1])
        return max(rates, default=None)

    def memory_share(self, streamed_bytes: float) -> float:
        """How far weights of that size, read in turn, come from memory: 0 from the cache, 1 all."""
        if self.knee is None:
            return 1.0
        warm = min(seconds for _, seconds in self.knee.points)
        cold = self.knee.points[-1][1]
        if cold <= warm:
            return 1.0
        # Rising by nature; a disturbed point in the middle must not make it fall again.
        reached = [(x, max(y for other, y in self.knee.points if other <= x))
                   for x, _ in self.knee.points]  # fmt: skip
        share = (Curve(tuple(reached)).level(streamed_bytes) - warm) / (cold - warm)
        return min(max(share, 0.0), 1.0)

    def covers(self, types: frozenset[str]) -> bool:
        """Whether everything was measured that a model with tensors of `types` needs."""
        return self.has_common and bool(self.attention) and types <= set(self.types)

    def completed(self, others: KernelRates, types: frozenset[str]) -> KernelRates:
        """These figures, and those of `others` for what was not measured. Where that is something a
        model with tensors of `types` needs, the whole is as certain as `others` are."""
        if self.covers(types):
            return self
        return replace(
            self,
            measured_at=others.measured_at,
            types={**others.types, **self.types},
            attention=self.attention or others.attention,
            small=self.small or others.small,
            recurrent=self.recurrent or others.recurrent,
            knee=self.knee or others.knee,
            step=self.step or others.step,
            sampling=self.sampling or others.sampling,
        )

    def merged(self, newer: KernelRates) -> KernelRates:
        """These figures with those of `newer` in front."""
        seen = {_attention_key(rates) for rates in newer.attention}
        older = tuple(rates for rates in self.attention if _attention_key(rates) not in seen)
        base = newer if newer.has_common else self
        return replace(
            base,
            engine_version=newer.engine_version,
            measured_at=newer.measured_at,
            types={**self.types, **newer.types},
            attention=older + newer.attention,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "description": self.description,
            "threads": self.threads,
            "engine_version": self.engine_version,
            "measured_at": self.measured_at,
            "types": {
                name: {
                    "dense": rates.dense.points,
                    "dense_cached": rates.dense_cached.points,
                    "small": rates.small.points,
                    "experts": rates.experts.points,
                    "experts_cached": rates.experts_cached.points,
                    "experts_small": rates.experts_small.points if rates.experts_small else None,
                    "bytes_per_element": rates.bytes_per_element,
                    "repacked": rates.repacked,
                }
                for name, rates in self.types.items()
            },
            "attention": [
                {
                    "key": rates.key,
                    "value": rates.value,
                    "type_k": rates.type_k,
                    "type_v": rates.type_v,
                    "decode": rates.decode.points,
                    "streams": rates.streams.points,
                    "few": rates.few,
                    "prefill": rates.prefill.points,
                    "kv_heads": rates.kv_heads,
                }
                for rates in self.attention
            ],
            "small": {
                name: {"node": rates.node, "element": rates.element}
                for name, rates in self.small.items()
            },
            "recurrent": {name: curve.points for name, curve in self.recurrent.items()},
            "knee": self.knee.points if self.knee else None,
            "step": self.step,
            "sampling": self.sampling.points if self.sampling else None,
            "load": self.load,
            "spread": self.spread,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> KernelRates:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: not what `to_json` wrote.
        """
        return KernelRates(
            device=data["device"],
            description=data["description"],
            threads=int(data["threads"]),
            engine_version=data["engine_version"],
            measured_at=data["measured_at"],
            types={name: type_rates(entry) for name, entry in data["types"].items()},
            attention=tuple(attention_rates(entry) for entry in data["attention"]),
            small={name: SmallRates(**entry) for name, entry in data["small"].items()},
            recurrent={name: Curve.of(points) for name, points in data["recurrent"].items()},
            knee=Curve.of(data["knee"]) if data["knee"] else None,
            step=data["step"],
            sampling=Curve.of(data["sampling"]) if data["sampling"] else None,
            load=data["load"],
            spread=data["spread"],
        )


def type_rates(entry: Mapping[str, Any]) -> TypeRates:
    return TypeRates(
        dense=Curve.of(entry["dense"]),
        dense_cached=Curve.of(entry["dense_cached"]),
        small=Curve.of(entry["small"]),
        experts=Curve.of(entry["experts"]),
        experts_cached=Curve.of(entry["experts_cached"]),
        bytes_per_element=float(entry["bytes_per_element"]),
        repacked=bool(entry["repacked"]),
        experts_small=Curve.of(entry["experts_small"]) if entry.get("experts_small") else None,
    )


def attention_rates(entry: Mapping[str, Any]) -> AttentionRates:
    return AttentionRates(
        key=int(entry["key"]),
        value=int(entry["value"]),
        type_k=entry["type_k"],
        type_v=entry["type_v"],
        decode=Curve.of(entry["decode"]),
        streams=Curve.of(entry["streams"]),
        few=float(entry["few"]),
        prefill=Curve.of(entry["prefill"]),
        kv_heads=int(entry.get("kv_heads", 4)),
    )


def _attention_key(rates: AttentionRates) -> tuple[int, int, str, str, int]:
    return rates.key, rates.value, rates.type_k, rates.type_v, rates.kv_heads
