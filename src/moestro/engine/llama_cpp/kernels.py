"""Single operations of a model, set up in ggml to be timed: products, attention, small work.

A `Timed` runs a graph of equal operations; its unit is one of them. Weights lie in the buffer type
that the engine would choose (`select_weight_buft` in llama.cpp: the extra types first, if the
device then supports the operation), so the same kernels run as in a model.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from moestro.engine.llama_cpp.ggml import (
    Device,
    Graph,
    Pool,
    Tensor,
    floats,
    int32s,
    normal_values,
    quantized,
)
from moestro.model.ggml_types import BY_NAME
from moestro.units import MIB

ROW = 2048
"""Row length of the matrices that are timed; a multiple of every type's block."""

_TILE_VALUES = 16 * ROW

EXPERTS_USED = 8
SPREAD = 64


@dataclass
class Timed:
    """`run()` computes `units` equal operations and returns seconds for all of them."""

    units: int
    graph: Graph
    pools: list[Pool] = field(default_factory=list)

    def run(self) -> float:
        return self.graph.run()

    def close(self) -> None:
        self.graph.close()
        for pool in self.pools:
            pool.close()


class Kernels:
    """Makes timed operations for one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._values = normal_values(_TILE_VALUES)

    # Weights

    def matrices(self, type_name: str, rows: int, size_bytes: int, row: int = ROW) -> Weights:
        """As many matrices [row → rows] as make up `size_bytes`, at least one."""
        one = BY_NAME[type_name].row_bytes(row) * rows
        return self._weights(type_name, (row, rows), max(1, size_bytes // one))

    def experts(self, type_name: str, rows: int, size_bytes: int, row: int = ROW) -> Weights:
        """One tensor of experts [row → rows]; their number is a multiple of `EXPERTS_USED`."""
        one = BY_NAME[type_name].row_bytes(row) * rows
        count = max(1, size_bytes // (one * EXPERTS_USED)) * EXPERTS_USED
        return self._weights(type_name, (row, rows, count), 1)

    def _weights(self, type_name: str, shape: tuple[int, ...], count: int) -> Weights:
        data = quantized(self.device.library, type_name, self._values, ROW)
        for buffer_type in [*self.device.extra, None]:
            pool = Pool(self.device)
            tensors = [pool.tensor(type_name, *shape) for _ in range(count)]
            if pool.allocate(buffer_type, weights=True) and (
                buffer_type is None or self._takes(tensors[0], shape)
            ):
                for tensor in tensors:
                    pool.fill(tensor, data)
                return Weights(type_name, shape, tensors, pool, repacked=buffer_type is not None)
            pool.close()
        raise MemoryError(f"no room for {count} matrices of {type_name}")

    def _takes(self, weight: Tensor, shape: tuple[int, ...]) -> bool:
        """Whether the device multiplies with a weight that lies where `weight` does."""
        graph, pool = Graph(self.device, 8), Pool(self.device)
        if len(shape) == 2:
            inputs = pool.tensor("F32", shape[0], 4)
            pool.allocate()
            product = graph.op("mul_mat", weight, inputs)
        else:
            inputs = pool.tensor("F32", shape[0], 1, 4)
            ids = pool.tensor("I32", EXPERTS_USED, 4)
            pool.allocate()
            product = graph.op("mul_mat_id", weight, inputs, ids)
        supported = graph.supports(product)
        graph.close()
        pool.close()
        return supported

    # Products

    def products(self, weights: Weights, columns: int, count: int | None = None) -> Timed:
        """y = W·X with `columns` columns, for each of the first `count` matrices."""
        used = weights.tensors[:count]
        pool = Pool(self.device)
        inputs = pool.tensor("F32", weights.shape[0], columns)
        self._fill(pool)
        return self._chain(used, lambda graph, weight: graph.op("mul_mat", weight, inputs), [pool])

    def expert_products(self, weights: Weights, rows: int, groups: int | None = None) -> Timed:
        """`EXPERTS_USED` experts with `rows` rows each: one unit is one expert."""
        (tensor,) = weights.tensors
        available = weights.shape[2] // EXPERTS_USED
        groups = min(groups or available, available)
        pool = Pool(self.device)
        inputs = pool.tensor("F32", weights.shape[0], 1, rows)
        ids = [pool.tensor("I32", EXPERTS_USED, rows) for _ in range(groups)]
        self._fill(pool, skip=ids)
        for group, table in enumerate(ids):
            chosen = [group * EXPERTS_USED + place for place in range(EXPERTS_USED)]
            pool.fill(table, int32s(chosen * rows))
        timed = self._chain(
            ids, lambda graph, table: graph.op("mul_mat_id", tensor, inputs, table), [pool]
        )
        timed.units *= EXPERTS_USED
        return timed

    def prompt_products(self, weights: Weights, rows: int) -> Timed:
        """The experts of a prompt: each of up to `SPREAD` gets `rows` rows, from tokens that lie
        apart. One unit is one expert."""
        (tensor,) = weights.tensors
        experts = min(weights.shape[2], SPREAD)
        tokens = rows * experts // EXPERTS_USED
        pool = Pool(self.device)
        inputs = pool.tensor("F32", weights.shape[0], 1, tokens)
        ids = pool.tensor("I32", EXPERTS_USED, tokens)
        self._fill(pool, skip=[ids])
        order = list(range(experts))
        chosen: list[int] = []
        source = random.Random(1)
        while len(chosen) < tokens * EXPERTS_USED:
            source.shuffle(order)
            chosen += order  # whole rounds: a token's experts differ, and each gets its share
        pool.fill(ids, int32s(chosen))
        timed = self._chain(
            [ids], lambda graph, table: graph.op("mul_mat_id", tensor, inputs, table), [pool]
        )
        timed.units = experts
        return timed

    # Attention

    def attention(
        self, *, key: int, value: int, heads: int, kv_heads: int, type_k: str, type_v: str,
        tokens: int, depth: int, streams: int = 1, layers: int = 1, flash: bool = True,
    ) -> Timed | None:  # fmt: skip
        """`tokens` queries of each stream at the end of a cache of `depth + tokens` cells; None
        where the device can't. `layers` caches are read in turn."""
        cells = -(-(depth + tokens) // 256) * 256
        pool = Pool(self.device)
        query = pool.tensor("F32", key, heads, tokens, streams)
        keys = [pool.tensor(type_k, key, kv_heads, cells, streams) for _ in range(layers)]
        values = [pool.tensor(type_v, value, kv_heads, cells, streams) for _ in range(layers)]
        mask = pool.tensor("F16", cells, tokens, 1, streams)
        self._fill(pool, skip=[*keys, *values, mask])
        library = self.device.library
        for tensors, kind, width in ((keys, type_k, key), (values, type_v, value)):
            tile = width * kv_heads
            data = quantized(library, kind, normal_values(tile * 16), tile)
            for tensor in tensors:
                pool.fill(tensor, data)
        pool.fill(mask, _causal_mask(cells, tokens, depth) * streams)
        graph = Graph(self.device)
        for cache_k, cache_v in zip(keys, values, strict=True):
            q = graph.op("permute", query, 0, 2, 1, 3)
            k = graph.op("permute", cache_k, 0, 2, 1, 3)
            if flash:
                v = graph.op("permute", cache_v, 0, 2, 1, 3)
                result = graph.op("flash_attn_ext", q, k, v, mask, key**-0.5, 0.0, 0.0)
            else:
                scores = graph.op("mul_mat", k, q)
                weights = graph.op("soft_max_ext", scores, mask, key**-0.5, 0.0)
                v = graph.op("permute", cache_v, 1, 2, 0, 3)
                result = graph.op("mul_mat", graph.op("cont", v), weights)
            if not graph.supports(result):
                graph.close()
                pool.close()
                return None
            graph.add_result(result)
        graph.allocate()
        return Timed(layers, graph, [pool])

    # Recurrent layers

    def gated_delta_net(self, *, size: int, heads: int, tokens: int, streams: int = 1) -> Timed:
        pool = Pool(self.device)
        q, k, v = (pool.tensor("F32", size, heads, tokens, streams) for _ in range(3))
        g, beta = (pool.tensor("F32", 1, heads, tokens, streams) for _ in range(2))
        states = [pool.tensor("F32", size, size, heads, streams) for _ in range(4)]
        self._fill(pool, skip=[g])
        pool.fill(g, floats([-0.1]))  # decay: positive values would grow without bound
        return self._chain(
            states,
            lambda graph, state: graph.op("gated_delta_net", q, k, v, g, beta, state, 1),
            [pool],
        )

    def state_scan(self, *, size: int, head: int, heads: int, tokens: int) -> Timed:
        pool = Pool(self.device)
        x = pool.tensor("F32", head, heads, tokens, 1)
        dt = pool.tensor("F32", heads, tokens, 1)
        a = pool.tensor("F32", 1, heads)
        b, c = (pool.tensor("F32", size, 1, tokens, 1) for _ in range(2))
        states = [pool.tensor("F32", size, head, heads, 1) for _ in range(4)]
        ids = pool.tensor("I32", 1)
        self._fill(pool, skip=[a, ids])
        pool.fill(a, floats([-0.5]))
        pool.fill(ids, int32s([0]))
        return self._chain(
            states,
            lambda graph, state: graph.op("ssm_scan", state, x, dt, a, b, c, ids, 1),
            [pool],
        )

    def convolution(self, *, channels: int, tokens: int, width: int = 4) -> Timed:
        """The short convolution with what surrounds it: the state is put before the tokens, and
        the result goes through SiLU."""
        pool = Pool(self.device)
        weight = pool.tensor("F32", width, channels)
        state = pool.tensor("F32", width - 1, channels)
        inputs = [pool.tensor("F32", channels, tokens) for _ in range(4)]
        self._fill(pool)

        def build(graph: Graph, x: Tensor) -> Tensor:
            rows = graph.op("concat", state, graph.op("transpose", x), 0)
            return graph.op("silu", graph.op("ssm_conv", rows, weight))

        return self._chain(inputs, build, [pool])

    # Small work

    def small(self, name: str, width: int, tokens: int, count: int) -> Timed:
        """`count` operations of kind `name` on `tokens` rows of `width` values."""
        pool = Pool(self.device)
        inputs = [pool.tensor("F32", width, tokens) for _ in range(count)]
        other = pool.tensor("F32", width, tokens)
        weight = pool.tensor("F32", width)
        factors = pool.tensor("F32", 1, EXPERTS_USED, tokens)
        positions = pool.tensor("I32", tokens)
        rows = pool.tensor("I64", tokens)
        cache = pool.tensor("F16", width, tokens)
        self._fill(pool, skip=[positions, rows, cache])
        pool.fill(positions, int32s(range(tokens)))
        pool.fill(rows, bytes((ctypes.c_int64 * tokens)(*range(tokens))))

        def build(graph: Graph, x: Tensor) -> Tensor:
            if name == "norm":
                return graph.op("mul", graph.op("rms_norm", x, 1e-6), weight)
            if name == "weigh":  # the experts' results, each row with one factor
                rows_of_8 = graph.op("reshape_3d", x, width // EXPERTS_USED, EXPERTS_USED, tokens)
                return graph.op("mul", rows_of_8, factors)
            if name in ("add", "mul", "swiglu_split"):
                return graph.op(name, x, other)
            if name == "rope":
                heads = graph.op("reshape_3d", x, 128, width // 128, tokens)
                return graph.rope(heads, positions, 128)
            if name == "set_rows":
                return graph.op(name, cache, x, rows)
            if name == "argsort_top_k":
                return graph.op(name, x, EXPERTS_USED)
            if name == "l2_norm":
                return graph.op(name, graph.op("reshape_3d", x, 128, width // 128, tokens), 1e-6)
            if name == "transpose":
                return graph.op("cont", graph.op("transpose", x))
            return graph.op(name, x)

        return self._chain(inputs, build, [pool])

    def _chain(
        self,
        tensors: Sequence[Tensor],
        build: Callable[[Graph, Tensor], Tensor],
        pools: list[Pool],
    ) -> Timed:
        graph = Graph(self.device)
        for tensor in tensors:
            graph.add_result(build(graph, tensor))
        graph.allocate()
        return Timed(len(tensors), graph, pools)

    def _fill(self, pool: Pool, skip: Sequence[Tensor] = ()) -> None:
        """Normal random values everywhere: zeros and denormals would be another speed."""
        pool.allocate()
        data = bytes(self._values)
        for tensor in pool.tensors:
            if tensor not in skip:
                pool.fill(tensor, data)


@dataclass
class Weights:
    """Equal matrices in the buffer where the engine would have them."""

    type_name: str
    shape: tuple[int, ...]
    tensors: list[Tensor]
    pool: Pool
    repacked: bool

    @property
    def bytes_each(self) -> int:
        return BY_NAME[self.type_name].row_bytes(self.shape[0]) * self.shape[1]

    @property
    def elements(self) -> int:
        """Of one matrix or one expert."""
        return self.shape[0] * self.shape[1]

    def count_for(self, size_bytes: int) -> int:
        return max(1, min(len(self.tensors), size_bytes // self.bytes_each))


@contextmanager
def closing(weights: Weights) -> Iterator[Weights]:
    try:
        yield weights
    finally:
        weights.pool.close()


def _causal_mask(cells: int, tokens: int, depth: int) -> bytes:
    """f16: query i sees the first `depth + i + 1` cells."""
    zero, minus_infinity = b"\x00\x00", b"\x00\xfc"
    return b"".join(
        zero * (depth + token + 1) + minus_infinity * (cells - depth - token - 1)
        for token in range(tokens)
    )


__all__ = ["EXPERTS_USED", "MIB", "ROW", "Kernels", "Timed", "Weights", "closing"]
