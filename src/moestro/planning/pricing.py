"""Seconds of one operation, from measured rates."""

from __future__ import annotations

import math
from functools import lru_cache

from moestro.planning.rates import AttentionRates, Curve, KernelRates
from moestro.planning.work import (
    Attention,
    ExpertProduct,
    Operation,
    Product,
    Recurrent,
    Small,
)

SMALL_ELEMENTS = 512 * 512
LARGE_ELEMENTS = 2048 * 2048
SMALL_EXPERT_ELEMENTS = 512 * 256
LARGE_EXPERT_ELEMENTS = 2048 * 768
"""Sizes of the matrices that `TypeRates.small`, `.dense`, `.experts_small` and `.experts` were
measured with."""

MANY_COLUMNS = 16
"""From here on weights are used so often that it matters little where they come from."""

TILED_QUERIES = 64
"""From here on the engine computes attention in tiles."""


def seconds_of(operation: Operation, rates: KernelRates, memory_share: float) -> float | None:
    """None where nothing was measured that this operation could be judged by.

    `memory_share` says how far weights come from memory (1) or from the processor's cache (0).
    """
    match operation:
        case Product():
            return _product(operation, rates, memory_share)
        case ExpertProduct():
            return _experts(operation, rates, memory_share)
        case Attention():
            return _attention(operation, rates)
        case Recurrent():
            return _recurrent(operation, rates)
        case Small():
            return _small(operation, rates)


def _cached_share(cached: Curve, streamed: Curve, x: float) -> float:
    """Time from the cache over time from memory, at `x` columns or rows."""
    if x >= MANY_COLUMNS:
        return 1.0
    shares = [(at, min(seconds / streamed.at(at), 1.0)) for at, seconds in cached.points]
    return Curve((*shares, (MANY_COLUMNS, 1.0))).at(x)


def _blend(cached: Curve, streamed: Curve, x: float, memory_share: float) -> float:
    near = _cached_share(cached, streamed, x)
    return streamed.at(x) * (memory_share + (1 - memory_share) * near)


def _product(operation: Product, rates: KernelRates, memory_share: float) -> float | None:
    kind = rates.types.get(operation.type)
    if kind is None:
        return None
    columns = operation.columns
    large = _blend(kind.dense_cached, kind.dense, columns, memory_share)
    place = _between(operation.elements, SMALL_ELEMENTS, LARGE_ELEMENTS)
    rate = kind.small.at(columns) * (1 - place) + large * place
    return operation.elements * rate


def _experts(operation: ExpertProduct, rates: KernelRates, memory_share: float) -> float | None:
    kind = rates.types.get(operation.type)
    if kind is None:
        return None
    place = _between(operation.elements, SMALL_EXPERT_ELEMENTS, LARGE_EXPERT_ELEMENTS)
    total = 0.0
    for rows, chance in rows_per_expert(operation.tokens, operation.used, operation.count):
        rate = _blend(kind.experts_cached, kind.experts, rows, memory_share)
        if kind.experts_small is not None:
            rate = kind.experts_small.at(rows) * (1 - place) + rate * place
        total += operation.count * chance * rate
    return operation.elements * total


def _between(elements: int, small: int, large: int) -> float:
    """Where a size lies between two others, on a scale of ratios: 0 to 1."""
    place = math.log(elements / small) / math.log(large / small)
    return min(max(place, 0.0), 1.0)


@lru_cache(maxsize=512)
def rows_per_expert(tokens: int, used: int, count: int) -> tuple[tuple[int, float], ...]:
    """(rows, probability) for one expert under uniform routing: binomial, without the zero.

    Their sum is the share of experts that `tokens` tokens touch, 1 - (1 - k/E)^T.
    """
    chance = used / count
    if chance >= 1:
        return ((tokens, 1.0),)
    log_yes, log_no = math.log(chance), math.log1p(-chance)
    mean, deviation = tokens * chance, math.sqrt(tokens * chance * (1 - chance))
    first = max(1, int(mean - 6 * deviation))
    last = min(tokens, int(mean + 6 * deviation) + 6)
    found = []
    for rows in range(first, last + 1):
        ways = math.lgamma(tokens + 1) - math.lgamma(rows + 1) - math.lgamma(tokens - rows + 1)
        found.append((rows, math.exp(ways + rows * log_yes + (tokens - rows) * log_no)))
    return tuple(found)


def attention_rates(
    rates: KernelRates,
    head: int | None,
    latent: bool,
    type_k: str,
    type_v: str,
    kv_heads: int | None = None,
) -> AttentionRates | None:
    """The measured figures nearest to these: cache types first, then the width of a head, then the
    number of heads in the cache."""
    wanted, count = head or 128, kv_heads or 4

    def distance(known: AttentionRates) -> tuple[int, bool, float, float]:
        types = (known.type_k != type_k) + (known.type_v != type_v)
        width = abs(math.log(known.key / wanted))
        other = (known.key != known.value) != latent
        return types, other, width, abs(math.log(known.kv_heads / count))

    return min(rates.attention, key=distance, default=None)


def _attention(operation: Attention, rates: KernelRates) -> float | None:
    known = attention_rates(
        rates,
        operation.head,
        operation.latent,
        operation.type_k,
        operation.type_v,
        operation.kv_heads,
    )
    if known is None:
        return None
    cells = operation.cells
    if operation.queries >= TILED_QUERIES:
        rate = known.prefill.level(min(operation.depth, operation.window or operation.depth))
    else:
        rate = known.decode.level(cells)
        if operation.streams > 1:
            rate = known.streams.level(cells)
        if operation.queries > 1:  # few queries take the way of several streams
            rate = known.few * known.streams.level(cells) / known.streams.level(1024)
    return operation.width * operation.queries * operation.streams * cells * rate


def _recurrent(operation: Recurrent, rates: KernelRates) -> float | None:
    scan, convolution = rates.recurrent.get(operation.name), rates.recurrent.get("convolution")
    if scan is None or convolution is None:
        return None
    tokens = operation.queries * operation.streams
    per_token = operation.values * scan.level(operation.queries)
    per_token += operation.channels * convolution.level(operation.queries)
    return tokens * per_token


def _small(operation: Small, rates: KernelRates) -> float | None:
    known = rates.small.get(operation.name) or rates.small.get("mul")
    if known is None:
        return None
    return operation.count * (known.node + operation.values * known.element)
