"""Where blocks go. `tests/engine` compares all of this with the engine itself."""

from __future__ import annotations

import pytest

from moestro.model import ModelSpec, read_model
from moestro.planning.placement import block_count, expert_blocks, place
from moestro.planning.settings import Settings
from tests.shapes import PUBLISHED, write_header

SETTINGS = Settings(context=1024, parallel=1, threads=1)


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """46 blocks, the first of them dense, and an MTP block with experts."""
    path = tmp_path_factory.mktemp("glm") / "m.gguf"
    return read_model(write_header(PUBLISHED["GLM-4.5-Air"]().with_vocabulary(512), path))


def test_blocks_with_experts_are_counted_from_the_first_that_has_some(glm: ModelSpec):
    assert block_count(glm) == 47
    assert list(expert_blocks(glm)) == list(range(1, 47))


def test_gpu_layers_are_the_head_and_then_the_last_blocks(glm: ModelSpec):
    placed = place(glm, Settings(1024, 1, 1, gpu_layers=3), (24,))
    assert placed.output == "GPU0"
    assert placed.blocks == ("CPU",) * 45 + ("GPU0",) * 2
    nothing = place(glm, Settings(1024, 1, 1, gpu_layers=0), (24,))
    assert nothing.devices == ("CPU",)
    assert place(glm, SETTINGS, ()).devices == ("CPU",)


@pytest.mark.parametrize(("shares", "first"), [((1, 1, 1), 16), ((3, 1), 36), ((1, 1), 24)])
def test_shares_that_end_on_a_block(glm: ModelSpec, shares: tuple[int, ...], first: int):
    """48 pieces with the head; the engine computes in single precision, where 16/48 is 1/3."""
    placed = place(glm, SETTINGS, shares)
    assert placed.blocks.count("GPU0") == first


def test_an_explicit_split_wins_over_free_memory(glm: ModelSpec):
    split = Settings(1024, 1, 1, tensor_split=(1.0, 3.0))
    assert place(glm, split, (24, 24)).blocks.count("GPU0") == 12


def test_experts_of_blocks_on_the_host_need_no_rule(glm: ModelSpec):
    settings = Settings(1024, 1, 1, gpu_layers=10, cpu_expert_layers=40)
    placed = place(glm, settings, (24,))
    assert placed.expert_blocks_on_host == {38, 39, 40}
