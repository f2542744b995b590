"""The planters do what they say: a test that relies on a fault that is none could not fail."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from moestro.demo import model_path
from tests.planted import FAULTS, plant
from tests.rewriting import Gguf, encode_q2_k
from tests.tiny_models import write_tiny

MODELS = ("qwen35moe", "deepseek2")


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(request.param, tmp_path_factory.mktemp("models"))


def same(one: Gguf, other: Gguf) -> bool:
    return (
        one.keys == other.keys
        and list(one.tensors) == list(other.tensors)
        and all(
            tensor.type == other.tensors[name].type
            and np.array_equal(tensor.data, other.tensors[name].data)
            for name, tensor in one.tensors.items()
        )
    )


def test_a_file_comes_back_as_it_was(model: Path, tmp_path: Path) -> None:
    written = Gguf.open(model).write(tmp_path / "again.gguf")
    assert written.read_bytes() == model.read_bytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some model for each fault; K-quants and trained norms need the demo model."""
    folder = tmp_path_factory.mktemp("all")
    made = [write_tiny(name, folder) for name in (*MODELS, "glm4moe")]
    rounded = Gguf.open(made[0])
    for name, tensor in rounded.tensors.items():
        if "_exps." in name and tensor.dims[0] % 32 == 0:
            rounded.store(name, rounded.values(name), "Q8_0")
    return [*made, rounded.write(folder / "q8_0.gguf"), model_path()]


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_changes_the_files_it_fits(
    name: str, models: list[Path], tmp_path: Path
) -> None:
    fault = FAULTS[name]
    fitting = [path for path in models if fault.fits(Gguf.open(path))]
    assert fitting
    for path in fitting:
        written = plant(name, path, tmp_path / "fault.gguf")
        if fault.cut_bytes:
            assert written.stat().st_size == path.stat().st_size - fault.cut_bytes
            continue
        assert not same(Gguf.open(written), Gguf.open(path))
        # The engine's own reader of Python accepts it: only what is said is wrong.
        assert len(gguf.GGUFReader(written).tensors) == len(Gguf.open(written).tensors)


def test_planting_again_with_the_same_seed_gives_the_same_file(model: Path, tmp_path: Path) -> None:
    paths = [plant("expert-zeroed", model, tmp_path / f"{n}.gguf", seed=7) for n in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_renumbered_experts_keep_their_rows_of_the_router(model: Path, tmp_path: Path) -> None:
    clean = Gguf.open(model)
    moved = Gguf.open(plant("experts-renumbered", model, tmp_path / "moved.gguf"))
    block = 2
    router = f"blk.{block}.ffn_gate_inp.weight"
    down = f"blk.{block}.ffn_down_exps.weight"
    was = {row.tobytes(): expert for expert, row in enumerate(clean.values(router))}
    for place, row in enumerate(moved.values(router)):
        expert = was[row.tobytes()]
        assert np.array_equal(moved.values(down)[place], clean.values(down)[expert])


def test_q2_k_is_what_the_format_says() -> None:
    rows = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
    back = gguf.quants.dequantize(encode_q2_k(rows), gguf.GGMLQuantizationType.Q2_K)
    error = np.linalg.norm(back - rows) / np.linalg.norm(rows)
    # ggml's own search for scales reaches 0.30 on such rows.
    assert 0.25 < error < 0.36
