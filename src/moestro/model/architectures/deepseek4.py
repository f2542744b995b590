"""DeepSeek-V4: compressed sparse attention and hyper-connections.

Every block keeps a window of key vectors (one head; the value is the key). By its compression
ratio a block keeps more:

- 0: nothing.
- 4: one vector for each 4 tokens, an indexer vector for each 4 tokens that picks among them, and
  the state of both compressors: 2 · 8 rows of twice the width, in f32.
- 128: one vector for each 128 tokens, and a compressor state of 2 · 128 rows.

The MTP block keeps a window. Streams never share a table, not even with `--unified`.

The first blocks choose experts by a table of token numbers (`ffn_gate_tid2eid`).
"""

from __future__ import annotations

from moestro.model.architectures.family import (
    STATE_VALUE_BYTES,
    Family,
    block_counts,
    head_widths,
)
from moestro.model.cache import KvStore, Layer, LayerKind
from moestro.model.metadata import Hyperparameters
from moestro.model.roles import Role, rules

SPARSE, HEAVY = 4, 128


def layers(hyper: Hyperparameters) -> tuple[Layer, ...] | None:
    trunk, mtp = block_counts(hyper)
    widths = head_widths(hyper)
    window = hyper.integer("attention.sliding_window")
    indexer = hyper.integer("attention.indexer.key_length", most=1 << 20)
    ratios = hyper.per_layer("attention.compress_ratios", trunk + mtp, most=1 << 20)
    if widths is None or not window or ratios is None or indexer is None:
        return None
    return tuple(
        _layer(index, ratio, widths[0], window, indexer, mtp=index >= trunk)
        for index, ratio in enumerate(ratios)
    )


def _layer(index: int, ratio: int, width: int, window: int, indexer: int, *, mtp: bool) -> Layer:
    stores = [KvStore(width, window=window, shareable=False)]
    if mtp:
        # The engine gives the block its window in the trunk's cache too, and in the draft's keeps
        # values beside the keys.
        own = KvStore(width, width, window, shareable=False)
        return Layer(index, LayerKind.WINDOW, (own,), 0, mtp, tuple(stores))
    values = 0
    if ratio == SPARSE:
        stores += [
            KvStore(width, tokens_per_cell=SPARSE, shareable=False),
            KvStore(indexer, tokens_per_cell=SPARSE, shareable=False),
        ]
        values = 2 * (2 * SPARSE) * (2 * width + 2 * indexer)
    elif ratio == HEAVY:
        stores.append(KvStore(width, tokens_per_cell=HEAVY, shareable=False))
        values = 2 * HEAVY * width
    kind = LayerKind.COMPRESSED if ratio else LayerKind.WINDOW
    return Layer(index, kind, tuple(stores), values * STATE_VALUE_BYTES)


FAMILY = Family(
    gguf=("deepseek4",),
    hugging_face={"deepseek_v4": "deepseek4"},
    layers=layers,
    gating="sqrt-softplus",
    roles=rules(
        (r"ffn\.gate\.|mlp\.gate\.", Role.ROUTER),
        (r"hc_", Role.OTHER),
    ),
)
