"""What a sequence keeps in memory: key-value cells and recurrent states, layer by layer.

The formulae are those of llama.cpp's caches (`llama-kv-cache*.cpp`, `llama-hparams.cpp`):

- Full attention: one cell per token, `key_width + value_width` values.
  Grouped queries: both are `n_kv_heads · head_dim`. Latent attention (MLA) keeps one latent vector
  and its rotary part, `kv_lora + rope`, and no value: that is a part of the key.
- Window attention: cells for `window + ubatch` tokens at most, rounded up to 256.
- Compressed attention (DeepSeek-V4): one cell for each `tokens_per_cell` tokens.
- Recurrent layers: a state of fixed size per sequence, in f32.

The context of one stream is rounded up to 256 cells, as the engine does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from moestro.model.ggml_types import BY_NAME

CELL_PADDING = 256
DEFAULT_UBATCH = 512


class LayerKind(StrEnum):
    ATTENTION = "attention"
    WINDOW = "window"
    LATENT = "latent"
    COMPRESSED = "compressed"
    RECURRENT = "recurrent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KvStore:
    """One table of cells. Widths are in values per cell; a latent store has no values (0).

    `window` bounds the cells by that many tokens (plus one ubatch); None grows with the context.
    A table that is not `shareable` is kept for each stream even where streams share the context,
    and each is then as long as the shared one would be.
    """

    key_width: int
    value_width: int = 0
    window: int | None = None
    tokens_per_cell: int = 1
    shareable: bool = True

    def cell_bytes(self, type_k: str, type_v: str) -> int:
        return _row_bytes(type_k, self.key_width) + _row_bytes(type_v, self.value_width)

    def cells(self, context: int, ubatch: int, streams_in_window: int = 1) -> int:
        """Cells for one stream that can reach `context` tokens (already padded)."""
        if self.window is not None:
            return _padded(min(context, self.window * streams_in_window + ubatch))
        if self.tokens_per_cell == 1:
            return context
        return _padded(-(-context // self.tokens_per_cell))


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. `state_bytes` is the recurrent state of one sequence.

    The stores of an MTP block (`mtp`) are in the draft context. `trunk_stores` are what the trunk's
    cache keeps for it all the same, whether it drafts or not: DeepSeek-V4's window.
    """

    index: int
    kind: LayerKind
    stores: tuple[KvStore, ...] = ()
    state_bytes: int = 0
    mtp: bool = False
    trunk_stores: tuple[KvStore, ...] = ()


def cache_bytes(
    layers: Iterable[Layer],
    context: int,
    parallel: int = 1,
    type_k: str = "f16",
    type_v: str = "f16",
    *,
    ubatch: int = DEFAULT_UBATCH,
    unified: bool = False,
    snapshots: int = 0,
) -> int:
    """Bytes of the cache for `parallel` streams of `context` tokens each, recurrent state included.

    `unified` streams share one table of `context · parallel` cells. `snapshots` are older states
    kept beside each state: one for each token that may be drafted, to go back to.
    """
    tables, states = cache_parts(
        layers,
        context,
        parallel,
        type_k,
        type_v,
        ubatch=ubatch,
        unified=unified,
        snapshots=snapshots,
    )
    return tables + states


def cache_parts(
    layers: Iterable[Layer],
    context: int,
    parallel: int = 1,
    type_k: str = "f16",
    type_v: str = "f16",
    *,
    ubatch: int = DEFAULT_UBATCH,
    unified: bool = False,
    snapshots: int = 0,
) -> tuple[int, int]:
    """`cache_bytes` in two parts: tables of cells, and recurrent states with their snapshots."""
    tables = states = 0
    cells_asked = _padded(context * parallel) if unified else _padded(context)
    for layer in layers:
        for store in layer.stores:
            cell_bytes = store.cell_bytes(type_k, type_v)
            if unified and store.shareable:
                tables += cell_bytes * store.cells(cells_asked, ubatch, parallel)
            else:
                tables += cell_bytes * store.cells(cells_asked, ubatch) * parallel
        states += layer.state_bytes * parallel * (1 + snapshots)
    return tables, states


def bytes_per_token(layers: Iterable[Layer], type_k: str = "f16", type_v: str = "f16") -> int:
    """By how much the cache grows with each token of a long context: windows and recurrent states,
    which do not grow, are not in it."""
    growing = [store for layer in layers for store in layer.stores if store.window is None]
    # Compressed tables grow by a part of a cell; the parts are added before they are rounded.
    parts = sum(
        store.cell_bytes(type_k, type_v) * 4096 // store.tokens_per_cell for store in growing
    )
    return -(-parts // 4096)


def window_bytes(
    layers: Iterable[Layer],
    type_k: str = "f16",
    type_v: str = "f16",
    *,
    ubatch: int = DEFAULT_UBATCH,
) -> int:
    """Bytes of all windows of one sequence once its context is longer than they are."""
    return sum(
        store.cell_bytes(type_k, type_v) * _padded(store.window + ubatch)
        for layer in layers
        for store in layer.stores
        if store.window is not None
    )


def state_bytes(layers: Iterable[Layer]) -> int:
    """Bytes of recurrent state of one sequence."""
    return sum(layer.state_bytes for layer in layers)


def _row_bytes(type_name: str, width: int) -> int:
    return BY_NAME[type_name.upper()].row_bytes(width)


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
