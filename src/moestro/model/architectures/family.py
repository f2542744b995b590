"""What an architecture's file says about it, and arithmetic that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moestro.model.cache import KvStore, Layer, LayerKind
from moestro.model.metadata import MAX_LAYERS, Hyperparameters
from moestro.model.roles import RoleRule

LayersOf = Callable[[Hyperparameters], tuple[Layer, ...] | None]

STATE_VALUE_BYTES = 4
"""The engine keeps recurrent states in f32."""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture family.

    `gguf` are values of `general.architecture`; `hugging_face` maps values of `model_type` to them.
    `layers` tells
    what each block keeps per sequence, or None where the file does not say enough. `gating` is how
    the router scores when the file is silent. `roles` are rules for names that the common ones
    would place wrongly.
    """

    gguf: tuple[str, ...]
    hugging_face: Mapping[str, str]
    layers: LayersOf
    gating: str = "softmax"
    roles: tuple[RoleRule, ...] = ()

    def gguf_name(self, model_type: str) -> str:
        """What a GGUF of the Hugging Face `model_type` calls its architecture; of unknown families
        the model type itself."""
        return self.hugging_face.get(model_type, model_type)


def block_counts(hyper: Hyperparameters) -> tuple[int, int]:
    """(trunk blocks, MTP blocks). `block_count` counts both."""
    blocks = hyper.integer("block_count", most=MAX_LAYERS) or 0
    mtp = min(hyper.integer("nextn_predict_layers", most=MAX_LAYERS) or 0, blocks)
    return blocks - mtp, mtp


def head_widths(hyper: Hyperparameters) -> tuple[int, int] | None:
    """(key, value) width of one head."""
    heads = hyper.integer("attention.head_count")
    hidden = hyper.integer("embedding_length")
    default = hidden // heads if heads and hidden else None
    key = hyper.integer("attention.key_length", most=1 << 20) or default
    value = hyper.integer("attention.value_length", most=1 << 20) or default
    return (key, value) if key and value else None


def grouped_query_layers(
    hyper: Hyperparameters,
    *,
    windowed: list[bool] | None = None,
    recurrent: list[bool] | None = None,
    state_bytes: int = 0,
) -> tuple[Layer, ...] | None:
    """Blocks with keys and values for `head_count_kv` heads each.

    `windowed` and `recurrent` mark trunk blocks that see a window only, or keep `state_bytes` in
    place of a cache. MTP blocks attend fully.
    """
    trunk, mtp = block_counts(hyper)
    total = trunk + mtp
    widths = head_widths(hyper)
    kv_heads = hyper.per_layer("attention.head_count_kv", total, most=1 << 16)
    if kv_heads is None:
        kv_heads = hyper.per_layer("attention.head_count", total, most=1 << 16)
    if not total or widths is None or kv_heads is None:
        return None
    window = hyper.integer("attention.sliding_window")
    layers = []
    for index in range(total):
        is_mtp = index >= trunk
        if recurrent and not is_mtp and recurrent[index]:
            layers.append(Layer(index, LayerKind.RECURRENT, (), state_bytes))
            continue
        key, value = widths[0] * kv_heads[index], widths[1] * kv_heads[index]
        bounded = bool(window and windowed and not is_mtp and windowed[index])
        store = KvStore(key, value, window if bounded else None)
        kind = LayerKind.WINDOW if bounded else LayerKind.ATTENTION
        layers.append(Layer(index, kind, (store,), mtp=is_mtp))
    return tuple(layers)


def window_pattern(hyper: Hyperparameters, period: int) -> list[bool]:
    """Which trunk blocks see a window only: all but the last of each `period`, unless the file has
    a pattern of its own (a list of flags, or another period)."""
    trunk, _ = block_counts(hyper)
    listed = hyper.flags("attention.sliding_window_pattern", trunk)
    if listed is not None:
        return listed
    period = hyper.integer("attention.sliding_window_pattern", most=MAX_LAYERS) or period
    return [index % period < period - 1 for index in range(trunk)]
