"""Capture against what can be computed from the model's own definition."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from moestro.engine.llama_cpp.capture import Capture, Captured
from moestro.errors import EngineError
from moestro.model import read_model
from moestro.planning.settings import Settings
from tests.tiny_models import TINY, write_tiny

SETTINGS = Settings(context=128, parallel=1, threads=2, ubatch=48)
TOKENS = np.random.default_rng(3).integers(3, 300, 128).tolist()
FIRST = 64


def capture_of(name: str, folder: Path, settings: Settings = SETTINGS) -> Capture:
    return Capture(read_model(write_tiny(name, folder)), settings)


def copied(captured: Captured) -> Captured:
    """The arrays lie in memory that the next chunk overwrites."""
    return Captured(captured.logits.copy(), dict(captured.routers))


@pytest.mark.parametrize("name", TINY)
def test_every_architecture_shows_what_its_blocks_promise(name: str, tmp_path: Path) -> None:
    model = read_model(write_tiny(name, tmp_path))
    with Capture(model, SETTINGS) as capture:
        seen = capture.chunk(TOKENS, FIRST)
        assert seen.logits.shape == (len(TOKENS) - FIRST, capture.vocabulary.tokens)
        assert np.isfinite(seen.logits).all()
        experts = model.experts
        if experts is None:
            assert not seen.routers
            return
        assert len(seen.routers) == experts.layers
        for block, router in seen.routers.items():
            # The last block computes only what is asked for.
            last = block == max(seen.routers)
            tokens = len(TOKENS) - FIRST if last else len(TOKENS)
            assert router.logits.shape == (tokens, experts.count)
            assert router.chosen.shape == router.weights.shape == (tokens, experts.used)
            assert all(len(set(row)) == experts.used for row in router.chosen.tolist())
            assert ((router.chosen >= 0) & (router.chosen < experts.count)).all()


@pytest.mark.parametrize("name", ["mixtral", "qwen3moe", "qwen35moe", "granitemoe"])
def test_softmax_routers_choose_and_weigh_as_their_logits_say(name: str, tmp_path: Path) -> None:
    with capture_of(name, tmp_path) as capture:
        for router in capture.chunk(TOKENS, FIRST).routers.values():
            used = router.chosen.shape[1]
            best = np.argsort(-router.logits, axis=1)[:, :used]
            assert np.array_equal(np.sort(best, axis=1), np.sort(router.chosen, axis=1))
            chosen = np.take_along_axis(router.logits, router.chosen, axis=1).astype(np.float64)
            weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            assert np.allclose(weights, router.weights, atol=1e-5)


def test_a_scale_on_the_weights_is_seen(tmp_path: Path) -> None:
    with capture_of("deepseek2", tmp_path) as capture:
        for router in capture.chunk(TOKENS, FIRST).routers.values():
            assert np.allclose(router.weights.sum(axis=1), 2.5, atol=1e-4)


def test_micro_batches_and_asked_rows_change_nothing(tmp_path: Path) -> None:
    with capture_of("qwen35moe", tmp_path) as capture:
        some = copied(capture.chunk(TOKENS, FIRST))
        every = capture.chunk(TOKENS, 0)
        assert np.allclose(every.logits[FIRST:], some.logits, atol=1e-5)
        last = max(every.routers)
        assert every.routers[last].chosen.shape[0] == len(TOKENS)
    with capture_of("qwen35moe", tmp_path, Settings(128, 1, 2, ubatch=512)) as capture:
        whole = capture.chunk(TOKENS, FIRST)
        assert np.allclose(whole.logits, some.logits, atol=2e-3)


def test_a_chunk_does_not_remember_the_one_before(tmp_path: Path) -> None:
    with capture_of("qwen3next", tmp_path) as capture:
        first = copied(capture.chunk(TOKENS, FIRST))
        capture.chunk(TOKENS[::-1], FIRST)
        assert np.array_equal(capture.chunk(TOKENS, FIRST).logits, first.logits)


def test_greedy_streams_side_by_side_equal_streams_alone(tmp_path: Path) -> None:
    prompts = [TOKENS[:20], TOKENS[30:45], TOKENS[60:100]]
    with capture_of("qwen35moe", tmp_path) as capture:
        together = capture.generate(prompts, 12)
        alone = [capture.generate([prompt], 12)[0] for prompt in prompts]
        assert [len(stream) for stream in together] == [12, 12, 12]
        # The same up to near-ties; in a random model a first token that differs changes the rest.
        assert [stream[0] for stream in together] == [stream[0] for stream in alone]
        logits = capture.chunk([*prompts[0], *alone[0]], 19).logits
        assert np.argmax(logits[:-1], axis=1).tolist() == alone[0]


def test_a_generation_leaves_nothing_in_the_routers_of_the_next_chunk(tmp_path: Path) -> None:
    with capture_of("mixtral", tmp_path) as capture:
        before = {
            block: router.chosen.copy()
            for block, router in capture.chunk(TOKENS, FIRST).routers.items()
        }
        capture.generate([TOKENS[:20]], 4)
        after = capture.chunk(TOKENS, FIRST).routers
        assert list(after) == list(before) == [0, 1]
        for block, chosen in before.items():
            assert np.array_equal(after[block].chosen, chosen)


def test_a_dense_model_has_no_routers(tmp_path: Path) -> None:
    with capture_of("llama", tmp_path) as capture:
        assert capture.chunk(TOKENS, FIRST).routers == {}


def test_text_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    with capture_of("llama", tmp_path) as capture:
        assert capture.tokenize("") == []
        marked = capture.tokenize("<|im_start|>")
        assert len(marked) > 1


def test_a_refused_model_is_one_sentence(tmp_path: Path) -> None:
    model = read_model(write_tiny("mixtral", tmp_path, skip=("blk.1.ffn_norm",)))
    with pytest.raises(EngineError) as error, Capture(model, SETTINGS):
        pass
    assert "lacks the tensor blk.1.ffn_norm.weight" in error.value.sentence


def test_a_killed_engine_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with capture_of("mixtral", tmp_path) as capture:
        process = capture._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="SIGKILL"):
            capture.chunk(TOKENS, FIRST)
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors
