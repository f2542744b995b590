"""Arithmetic of caches, on tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.model.cache import (
    KvStore,
    Layer,
    LayerKind,
    bytes_per_token,
    cache_bytes,
    state_bytes,
    window_bytes,
)

FULL = Layer(0, LayerKind.ATTENTION, (KvStore(512, 512),))
WINDOW = Layer(1, LayerKind.WINDOW, (KvStore(512, 512, window=128),))
LATENT = Layer(2, LayerKind.LATENT, (KvStore(576),))
STATE = Layer(3, LayerKind.RECURRENT, (), 1000)
SPARSE = Layer(4, LayerKind.COMPRESSED, (KvStore(512, tokens_per_cell=128),))


@pytest.mark.parametrize(
    ("layer", "context", "parallel", "kind", "expected"),
    [
        (FULL, 256, 1, "f16", 256 * 1024 * 2),
        (FULL, 257, 1, "f16", 512 * 1024 * 2),  # rounded up to 256 cells
        (FULL, 256, 3, "f16", 3 * 256 * 1024 * 2),
        (FULL, 256, 1, "q8_0", 256 * 1024 // 32 * 34),
        (FULL, 256, 1, "q4_0", 256 * 1024 // 32 * 18),
        (FULL, 256, 1, "f32", 256 * 1024 * 4),
        (WINDOW, 100_000, 1, "f16", 768 * 1024 * 2),  # 128 + 512, rounded up
        (WINDOW, 256, 1, "f16", 256 * 1024 * 2),  # no more than the context
        (LATENT, 1024, 1, "f16", 1024 * 576 * 2),
        (STATE, 100_000, 4, "f16", 4000),
        (SPARSE, 65_536, 1, "f16", 512 * 512 * 2),
    ],
)
def test_cache_bytes(layer: Layer, context: int, parallel: int, kind: str, expected: int) -> None:
    assert cache_bytes([layer], context, parallel, kind, kind) == expected


def test_types_of_keys_and_values_are_apart() -> None:
    assert cache_bytes([FULL], 256, 1, "q8_0", "f16") == 256 * (512 // 32 * 34 + 512 * 2)
    # A latent cache has no values: their type does not matter.
    assert cache_bytes([LATENT], 256, 1, "f16", "q4_0") == cache_bytes([LATENT], 256)


def test_unified_streams_share_one_table() -> None:
    layers = [FULL, WINDOW, STATE]
    shared = cache_bytes(layers, 1024, 4, unified=True)
    apart = cache_bytes(layers, 1024, 4)
    full, states = 4 * 1024 * 1024 * 2, 4000
    assert shared == full + (4 * 128 + 512) * 1024 * 2 + states
    assert apart == full + 4 * 768 * 1024 * 2 + states


def test_what_grows_and_what_does_not() -> None:
    layers = [FULL, WINDOW, LATENT, STATE, SPARSE]
    assert bytes_per_token(layers) == 1024 * 2 + 576 * 2 + 512 * 2 // 128
    assert window_bytes(layers) == 768 * 1024 * 2
    assert state_bytes(layers) == 1000
    assert bytes_per_token([STATE]) == 0


@given(
    context=st.integers(1, 1 << 21),
    more=st.integers(0, 1 << 20),
    parallel=st.integers(1, 64),
    ubatch=st.integers(1, 4096),
)
def test_more_never_costs_less(context: int, more: int, parallel: int, ubatch: int) -> None:
    layers = [FULL, WINDOW, LATENT, STATE, SPARSE]
    here = cache_bytes(layers, context, parallel, ubatch=ubatch)
    assert cache_bytes(layers, context + more, parallel, ubatch=ubatch) >= here
    assert cache_bytes(layers, context, parallel + 1, ubatch=ubatch) > here
    assert cache_bytes(layers, context, parallel, "q8_0", "q8_0", ubatch=ubatch) <= here
