from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moestro.errors import ModelError
from moestro.routing.sample import ROUTER_STRIDE, LayerSample, check_sample, sample


def whole(tokens: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = np.arange(tokens * 4, dtype=np.float32).reshape(tokens, 4)
    chosen = np.tile(np.array([3, 2], dtype=np.int32), (tokens, 1))
    return logits, chosen, np.ones((tokens, 2), dtype=np.float32)


def test_logits_of_every_eighth_token_are_kept() -> None:
    logits, chosen, weights = whole()
    found = sample(logits, chosen, weights)
    assert found.tokens == 20
    assert found.rows.tolist() == [0, ROUTER_STRIDE, 2 * ROUTER_STRIDE]
    assert np.array_equal(found.logits, logits[found.rows])


def test_a_sample_stays_when_its_source_is_overwritten() -> None:
    logits, chosen, weights = whole()
    found = sample(logits, chosen, weights)
    for array in (logits, chosen, weights):
        array[:] = 0
    assert found.logits[1, 0] == 32
    assert found.chosen[0].tolist() == [3, 2]
    assert found.weights[0, 0] == 1


def test_a_chunk_without_tokens_is_a_sample_too() -> None:
    found = sample(*whole(0))
    check_sample(0, found, 4, 2)
    assert found.tokens == 0


GOOD = sample(*whole())


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, chosen=GOOD.chosen + 1),
        replace(GOOD, chosen=GOOD.chosen - 3),
        replace(GOOD, chosen=GOOD.chosen[:, :1]),
        replace(GOOD, chosen=GOOD.chosen[:, 0]),
        replace(GOOD, chosen=GOOD.chosen.astype(np.float32)),
        replace(GOOD, weights=GOOD.weights[:-1]),
        replace(GOOD, logits=GOOD.logits[:, :3]),
        replace(GOOD, logits=GOOD.logits[:2]),
        replace(GOOD, rows=GOOD.rows + 4),
        replace(GOOD, rows=GOOD.rows - 1),
        replace(GOOD, rows=GOOD.rows[::-1]),
        replace(GOOD, rows=np.array([0, 0, 8])),
        replace(GOOD, rows=GOOD.rows.astype(np.float64)),
    ],
)
def test_a_sample_that_cannot_be_is_refused(bad: LayerSample) -> None:
    check_sample(5, GOOD, 4, 2)
    with pytest.raises(ModelError, match="block 5") as caught:
        check_sample(5, bad, 4, 2)
    assert caught.value.code == "routing-invalid"
    assert caught.value.hint
