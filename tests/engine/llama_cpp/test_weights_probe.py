from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.engine.llama_cpp import row_samples, type_traits, weights_probe
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.row_samples import MAX_UNITS, NARROW, WIDE, row_sample
from moestro.engine.llama_cpp.weights_probe import ProbedTensor, WeightsProbe, probe_weights
from moestro.errors import (
    EngineMismatch,
    EngineStartFailed,
    ModelCorrupt,
    ModelTruncated,
    ModelUnsupported,
)
from moestro.model import ModelSpec, read_model
from moestro.model.ggml_types import GGML_TYPES, GgmlType
from tests.rewriting import Gguf, StoredTensor
from tests.shapes import families
from tests.shapes.write import write_split
from tests.tiny_models import write_tiny

UP = "blk.1.ffn_up_exps.weight"
DOWN = "blk.1.ffn_down_exps.weight"
QUERY = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixture of experts with a bias for each; Q8_0 and Q5_0 beside F32."""
    path = write_tiny("glm4moe", tmp_path_factory.mktemp("probe"))
    file = Gguf.open(path)
    file.store(DOWN, file.values(DOWN), "Q8_0")
    file.store(QUERY, file.values(QUERY), "Q5_0")
    return file.write(path.with_name("mixed.gguf"))


@pytest.fixture(scope="module")
def spec(tiny: Path) -> ModelSpec:
    return read_model(tiny)


@pytest.fixture(scope="module")
def probe(spec: ModelSpec) -> WeightsProbe:
    return probe_weights(spec)


def tensor(probe: WeightsProbe, name: str) -> ProbedTensor:
    return next(tensor for tensor in probe.tensors if tensor.name == name)


def signs(row: int, count: int) -> np.ndarray:
    raw = np.frombuffer(row_samples.sign_bytes(row, count), dtype=np.uint8)
    return np.unpackbits(raw)[:count] * 2.0 - 1


def test_hashes_are_those_of_the_files(probe: WeightsProbe, tiny: Path) -> None:
    assert probe.digests == (hashlib.sha256(tiny.read_bytes()).hexdigest(),)


def test_tensors_come_in_the_order_of_the_model(probe: WeightsProbe, spec: ModelSpec) -> None:
    assert [t.name for t in probe.tensors] == [t.name for t in spec.tensors]
    assert not any(t.bad_rows for t in probe.tensors)


@pytest.mark.parametrize("name", [QUERY, "blk.0.attn_output.weight", "blk.0.ffn_gate.weight"])
def test_a_row_becomes_its_norm_and_its_projection(
    probe: WeightsProbe, tiny: Path, name: str
) -> None:
    values = Gguf.open(tiny).values(name)
    seen = tensor(probe, name)
    units = len(seen.norms)
    rows = [(2 * unit + 1) * len(values) // (2 * units) for unit in range(units)]
    assert units == 32
    assert len(set(rows)) == units
    np.testing.assert_allclose(seen.norms, np.linalg.norm(values[rows], axis=1), rtol=1e-6)
    matrix = np.stack([signs(row, values.shape[1]) for row in range(NARROW)])
    expected = values[rows] @ matrix.T / np.sqrt(NARROW) / seen.norms[:, None]
    np.testing.assert_allclose(seen.sketch, expected, atol=2e-3)


def test_every_row_of_a_router_is_a_unit(probe: WeightsProbe, tiny: Path) -> None:
    name = "blk.1.ffn_gate_inp.weight"
    values = Gguf.open(tiny).values(name)
    seen = tensor(probe, name)
    assert seen.sketch.shape == (8, WIDE)
    np.testing.assert_allclose(seen.norms, np.linalg.norm(values, axis=1), rtol=1e-6)


def test_a_bias_of_experts_is_kept_value_by_value(probe: WeightsProbe, tiny: Path) -> None:
    name = "blk.1.exp_probs_b.bias"
    values = Gguf.open(tiny).values(name)
    seen = tensor(probe, name)
    first = np.array([signs(row, 1)[0] for row in range(WIDE)])
    back = (seen.sketch.astype(float) * seen.norms[:, None] * np.sqrt(WIDE) * first).mean(axis=1)
    np.testing.assert_allclose(back, values, rtol=1e-3)


@pytest.mark.parametrize("name", [UP, DOWN])
def test_every_expert_is_a_unit_of_several_rows(probe: WeightsProbe, tiny: Path, name: str) -> None:
    values = Gguf.open(tiny).values(name)  # [experts, rows, length]
    seen = tensor(probe, name)
    rows = [(2 * number + 1) * values.shape[1] // 8 for number in range(4)]
    assert seen.sketch.shape == (8, NARROW)
    expected = np.sqrt((values[:, rows].astype(float) ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(seen.norms, expected, rtol=1e-6)


def test_distances_between_sketches_are_distances_between_weights(
    probe: WeightsProbe, tiny: Path
) -> None:
    """Over many pairs of experts the estimate has no bias: its spread is 25 % of the square."""
    values = Gguf.open(tiny).values(UP).astype(float)
    rows = [(2 * number + 1) * values.shape[1] // 8 for number in range(4)]
    flat = values[:, rows].reshape(8, -1)
    seen = tensor(probe, UP)
    sketch = seen.sketch.astype(float) * seen.norms[:, None]
    pairs = [(i, j) for i in range(8) for j in range(i)]
    ratios = [
        ((sketch[i] - sketch[j]) ** 2).sum() / ((flat[i] - flat[j]) ** 2).sum() for i, j in pairs
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.2)
    assert 0.3 < min(ratios) < max(ratios) < 2.2


def test_progress_never_goes_back(spec: ModelSpec, tiny: Path) -> None:
    seen: list[tuple[int, int]] = []
    probe_weights(spec, progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {tiny.stat().st_size}
    assert seen[-1][0] <= tiny.stat().st_size


def test_rows_with_values_that_are_not_finite_are_found(tiny: Path, tmp_path: Path) -> None:
    file = Gguf.open(tiny)
    values = file.values(UP)
    values[3, 5, 7], values[3, 6, 0], values[6, 0, 1] = np.inf, np.nan, -np.inf
    file.store(UP, values)
    data = file.tensors[DOWN].data.copy()
    blocks = data.reshape(-1, 34)  # Q8_0; a row of this tensor is one block
    blocks[70, :2] = np.array([np.nan], dtype=np.float16).view(np.uint8)
    file.tensors[DOWN] = StoredTensor(file.tensors[DOWN].dims, "Q8_0", data)
    probe = probe_weights(read_model(file.write(tmp_path / "bad.gguf")))
    rows_of_an_expert = values.shape[1]
    assert tensor(probe, UP).bad_rows == 3
    assert tensor(probe, UP).first_bad_row == 3 * rows_of_an_expert + 5
    assert tensor(probe, DOWN).bad_rows == 1
    assert tensor(probe, DOWN).first_bad_row == 70
    assert [t.name for t in probe.tensors if t.bad_rows] == [UP, DOWN] or [
        t.name for t in probe.tensors if t.bad_rows
    ] == [DOWN, UP]


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    shape = families.qwen3moe(
        layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256, expert_ffn=256,
        experts=4, used=2, vocab=320,
    )  # fmt: skip
    paths = write_split(shape, tmp_path, "parted", 3)
    probe = probe_weights(read_model(paths[1]))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert probe.digests == tuple(hashes)
    assert len(probe.tensors) == len(shape.tensors)
    assert all((t.norms == 0).all() and (t.sketch == 0).all() for t in probe.tensors)


def test_a_file_that_got_shorter_is_cut_off(spec: ModelSpec, tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / tiny.name
    copy.write_bytes(tiny.read_bytes())
    files = weights_probe.local_headers(read_model(copy))
    with copy.open("r+b") as file:
        file.truncate(tiny.stat().st_size - 50_000)
    with pytest.raises(ModelTruncated, match="is cut off"):
        weights_probe._run(
            weights_probe._request(files, tmp_path), tmp_path, copy.name, lambda _done, _all: None
        )


def test_a_child_that_dies_is_one_sentence(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGBUS)"]
    monkeypatch.setattr(weights_probe, "child_command", lambda _module: dying)
    with pytest.raises(EngineStartFailed, match=r"^The process .* ended early, by SIGBUS\.$"):
        probe_weights(spec)


def test_a_file_that_was_replaced_is_told(spec: ModelSpec) -> None:
    other = replace(spec, tensors=spec.tensors[:-1])
    with pytest.raises(ModelCorrupt, match="replaced while"):
        probe_weights(other)


def test_only_local_gguf_files_are_read(spec: ModelSpec) -> None:
    with pytest.raises(ModelUnsupported, match="Hugging Face"):
        probe_weights(replace(spec, format="safetensors"))
    far = replace(spec.files[0], location="https://example.org/model.gguf")
    with pytest.raises(ModelUnsupported, match="not on this machine"):
        probe_weights(replace(spec, files=(far,)))


def test_absurdly_many_experts_are_refused(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_probe, "MAX_UNITS_OF_MODEL", 10)
    with pytest.raises(ModelUnsupported, match="more experts than"):
        probe_weights(spec)


def test_another_layout_of_types_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    library = type_traits.declare(open_library())
    type_traits.check_traits(library)
    monkeypatch.setitem(GGML_TYPES, 12, GgmlType("Q4_K", 256, 146))
    with pytest.raises(EngineMismatch, match="stores Q4_K differently"):
        type_traits.check_traits(library)


@given(
    name=st.sampled_from([UP, "token_embd.weight", "blk.0.ffn_gate_inp.weight", QUERY,
                          "blk.0.exp_probs_b.bias", "blk.0.ffn_up_exps.bias"]),
    shape=st.lists(st.integers(1, 300), min_size=1, max_size=4),
)  # fmt: skip
def test_sampled_rows_lie_inside_and_once(name: str, shape: list[int]) -> None:
    sample = row_sample(name, "F32", shape)
    assert sample.rows * sample.length == np.prod(shape)
    assert 0 < sample.units <= MAX_UNITS
    rows = [sample.row(unit, n) for unit in range(sample.units) for n in range(sample.rows_each)]
    assert all(0 <= row < sample.rows for row in rows)
    assert rows == sorted(set(rows))


@given(st.sampled_from(sorted({kind.name for kind in GGML_TYPES.values() if kind.block_size > 1}
                              - set(row_samples.NOT_SAMPLED))))  # fmt: skip
def test_the_type_does_not_change_the_sample(type_name: str) -> None:
    for name, shape in ((UP, (256, 512, 64)), ("blk.0.ffn_gate_inp.weight", (256, 64))):
        assert row_sample(name, type_name, shape) == row_sample(name, "F32", shape)
