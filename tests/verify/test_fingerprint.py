from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moestro.engine.llama_cpp.row_samples import row_sample
from moestro.errors import ModelCorrupt
from moestro.model import read_model
from moestro.verify.fingerprint import Fingerprint, take_fingerprint
from moestro.verify.static import check_static
from tests.rewriting import Gguf
from tests.tiny_models import write_tiny
from tests.verify.probing import probe_in_this_process

Stored = tuple[dict[str, Any], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def print_(tmp_path_factory: pytest.TempPathFactory) -> Fingerprint:
    path = write_tiny("deepseek2", tmp_path_factory.mktemp("print"))
    with pytest.MonkeyPatch.context() as patch:
        probe_in_this_process(patch)
        return take_fingerprint(read_model(path))


def test_it_knows_what_the_file_says(print_: Fingerprint) -> None:
    assert print_.architecture == "deepseek2"
    assert print_.gating == "sigmoid"
    assert print_.vocabulary == 320
    assert print_.keys["expert_used_count"] == 2
    assert print_.keys["rope.freq_base"] == pytest.approx(1e6)
    assert not any(key.startswith("deepseek2") for key in print_.keys)
    assert str(print_.tokenizer["ggml.tokens"]).startswith("sha256:")
    assert "chat_template" not in print_.tokenizer


def test_it_survives_json_and_arrays(print_: Fingerprint) -> None:
    facts, arrays = print_.to_arrays()
    back = Fingerprint.from_arrays(json.loads(json.dumps(facts)), arrays)
    assert back.keys == print_.keys
    assert back.tokenizer == print_.tokenizer
    assert [t.name for t in back.tensors] == [t.name for t in print_.tensors]
    for one, other in zip(back.tensors, print_.tensors, strict=True):
        assert (one.role, one.layer, one.shape) == (other.role, other.layer, other.shape)
        np.testing.assert_array_equal(one.norms, other.norms)
        np.testing.assert_array_equal(one.sketch, other.sketch)
    assert check_static(back, print_) == ()


def test_the_tokenizer_is_seen_whole(print_: Fingerprint, tmp_path: Path) -> None:
    file = Gguf.open(write_tiny("deepseek2", tmp_path))
    tokens = file.get("tokenizer.ggml.tokens")
    file.set("tokenizer.ggml.tokens", [*tokens[:-1], tokens[-1] + "x"])
    with pytest.MonkeyPatch.context() as patch:
        probe_in_this_process(patch)
        other = take_fingerprint(read_model(file.write(tmp_path / "other.gguf")))
    different = {k for k in print_.tokenizer if other.tokenizer[k] != print_.tokenizer[k]}
    assert different == {"ggml.tokens"}


def _tensor(index: int, value: Any) -> Callable[[Stored], None]:
    def change(stored: Stored) -> None:
        stored[0]["tensors"][5][index] = value

    return change


def _facts(key: str, value: Any) -> Callable[[Stored], None]:
    return lambda stored: stored[0].__setitem__(key, value)


def _array(key: str, change: Callable[[np.ndarray], Any]) -> Callable[[Stored], None]:
    return lambda stored: stored[1].__setitem__(key, change(stored[1][key]))


@pytest.mark.parametrize(
    "damage",
    [
        _facts("tensors", None),
        _facts("tensors", {"0": 1}),
        _facts("tensors", [["only", "three", "words"]]),
        _facts("digests", ["not a hash"]),
        _facts("digests", "0" * 64),
        _facts("keys", []),
        _facts("keys", {"a": {"b": 1}}),
        _facts("keys", {"a": [[1]]}),
        _facts("tokenizer", {"a": "x" * 100_000}),
        _facts("architecture", 3),
        _facts("vocabulary", -1),
        _facts("vocabulary", True),
        _facts("mtp_layers", 1.5),
        _tensor(0, 17),
        _tensor(1, "Q99"),
        _tensor(2, [0, 64]),
        _tensor(2, [1 << 62, 4]),
        _tensor(2, [64, 64, 1 << 40]),
        _tensor(2, []),
        _tensor(3, "no role"),
        _tensor(4, -1),
        _tensor(5, "1"),
        lambda stored: stored[0]["tensors"].append(stored[0]["tensors"][0]),
        lambda stored: stored[0]["tensors"].pop(),
        lambda stored: stored[0].pop("digests"),
        lambda stored: stored[1].pop("wide"),
        _array("norms", lambda norms: norms[:-1]),
        _array("norms", lambda norms: -norms),
        _array("norms", lambda norms: norms.astype(np.float64)),
        _array("norms", lambda norms: np.full_like(norms, np.inf)),
        _array("norms", lambda norms: norms.tolist()),
        _array("narrow", lambda sketch: sketch[:, :16]),
        _array("narrow", lambda sketch: sketch.reshape(-1)),
        _array("wide", lambda sketch: np.full_like(sketch, np.nan)),
    ],
)
def test_damaged_content_is_refused(print_: Fingerprint, damage: Callable[[Stored], None]) -> None:
    stored = copy.deepcopy(print_.to_arrays())
    damage(stored)
    with pytest.raises(ModelCorrupt, match="reference's weights is damaged"):
        Fingerprint.from_arrays(*stored)


def test_a_large_model_needs_a_few_megabytes() -> None:
    """40 layers with 256 experts: experts, routers and a dozen other tensors each."""
    layer = [
        *(row_sample("blk.0.ffn_up_exps.weight", "Q4_K", (2048, 512, 256)) for _ in range(3)),
        row_sample("blk.0.ffn_gate_inp.weight", "F32", (2048, 256)),
        *(row_sample("blk.0.attn_q.weight", "Q8_0", (2048, 4096)) for _ in range(12)),
    ]
    per_layer = sum(sample.units * (2 * sample.width + 4) for sample in layer)
    assert 2e6 < 40 * per_layer < 6e6
