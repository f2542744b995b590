"""The search over placements, with a made-up memory so that the right answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moestro.model import ModelSpec, read_model
from moestro.planning.placement import block_count, expert_blocks, place
from moestro.planning.search import Space, fastest, search, split
from moestro.planning.settings import Settings
from tests.shapes import PUBLISHED, write_header

BASE = Settings(context=4096, parallel=1, threads=4)


@dataclass(frozen=True)
class Made:
    settings: Settings
    over_bytes: dict[str, int]
    request_seconds: float | None = None
    spare_bytes: int = 0

    @property
    def fits(self) -> bool:
        return not any(self.over_bytes.values())


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """DeepSeek-V3: three leading dense blocks, 58 with experts, one MTP block with experts."""
    path = tmp_path_factory.mktemp("shapes") / "m.gguf"
    return read_model(write_header(PUBLISHED["DeepSeek-V3"](), path, vocab_tokens=256))


def space(**changes: object) -> Space:
    values: dict[str, object] = {
        "ubatches": (512,),
        "cache_types": ("f16",),
        "gpu_layers": None,
        "cpu_expert_layers": None,
        "gpu_bytes": (100,),
    }
    return Space(**{**values, **changes})  # type: ignore[arg-type]


def weighing(capacity: int, per_block: int = 1, per_expert: int = 10):
    """Each block on the GPU takes `per_block`, with its experts `per_expert` more."""

    def evaluate(tried: Settings) -> Made:
        layers = tried.gpu_layers or 0
        taken = layers * per_block + max(layers - tried.cpu_expert_layers, 0) * per_expert
        return Made(tried, {"GPU0": max(taken - capacity, 0), "CPU": 0})

    return evaluate


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(0, 800))
def test_the_first_step_that_fits_is_found(moe: ModelSpec, capacity: int) -> None:
    evaluate = weighing(capacity)
    found = search(moe, space(), BASE, evaluate).settings
    every, experts = block_count(moe) + 1, len(expert_blocks(moe))
    steps = [(every, count) for count in range(experts + 1)]
    steps += [(layers, experts) for layers in range(every - 1, -1, -1)]
    for layers, on_host in steps:
        tried = Settings(4096, 1, 4, gpu_layers=layers, cpu_expert_layers=on_host)
        if evaluate(tried).fits:
            assert (found.gpu_layers, found.cpu_expert_layers) == (layers, on_host)
            break


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(0, 800), layers=st.integers(0, 99), on_host=st.integers(0, 99),
)  # fmt: skip
def test_where_the_search_begins_does_not_matter(
    moe: ModelSpec, capacity: int, layers: int, on_host: int
) -> None:
    evaluate = weighing(capacity)
    near = Settings(4096, 1, 4, gpu_layers=layers, cpu_expert_layers=on_host)
    assert search(moe, space(near=near), BASE, evaluate) == search(moe, space(), BASE, evaluate)


def test_a_good_guess_takes_two_looks(moe: ModelSpec) -> None:
    looks: list[Settings] = []

    def evaluate(tried: Settings) -> Made:
        looks.append(tried)
        return weighing(400)(tried)

    found = search(moe, space(), BASE, evaluate).settings
    assert len(looks) > 4
    looks.clear()
    assert search(moe, space(near=found), BASE, evaluate).settings == found
    assert len(looks) == 2


def test_what_the_user_fixed_is_not_moved(moe: ModelSpec) -> None:
    found = search(moe, space(gpu_layers=20), BASE, weighing(100)).settings
    assert found.gpu_layers == 20
    assert found.cpu_expert_layers == 12
    found = search(moe, space(cpu_expert_layers=10), BASE, weighing(100)).settings
    assert found.cpu_expert_layers == 10
    assert found.gpu_layers == 18
    both = search(moe, space(gpu_layers=63, cpu_expert_layers=0), BASE, weighing(100))
    assert not both.fits


def test_a_smaller_cache_type_only_where_nothing_fits(moe: ModelSpec) -> None:
    def evaluate(tried: Settings) -> Made:
        needed = {"f16": 100, "q8_0": 50}[tried.cache_type_k]
        return Made(tried, {"CPU": max(needed - capacity, 0)})

    host = space(cache_types=("f16", "q8_0"), gpu_bytes=())
    for capacity, expected in ((100, "f16"), (60, "q8_0"), (10, "f16")):
        found = search(moe, host, BASE, evaluate)
        assert found.settings.cache_type_k == found.settings.cache_type_v == expected
        assert found.fits == (capacity >= 50)


def test_the_fastest_wins_but_not_for_nothing() -> None:
    def made(ubatch: int, seconds: float | None, on_host: int = 0) -> Made:
        changed = Settings(4096, 1, 4, ubatch=ubatch, cpu_expert_layers=on_host)
        return Made(changed, {}, seconds)

    assert fastest([made(512, 10.0), made(1024, 9.9)]).settings.ubatch == 512
    assert fastest([made(512, 10.0), made(1024, 9.0)]).settings.ubatch == 1024
    unknown = [made(512, None, on_host=5), made(256, None, on_host=4)]
    assert fastest(unknown).settings.ubatch == 256


def test_several_gpus_get_bytes_in_proportion(moe: ModelSpec) -> None:
    """Blocks without their experts weigh next to nothing; a split by count would pile all the
    heavy ones on the last GPU."""
    tried = Settings(4096, 1, 4, gpu_layers=block_count(moe) + 1, cpu_expert_layers=30)
    memory = (24 << 30, 12 << 30)
    shares = split(moe, tried, memory)
    assert shares is not None
    assert sum(shares) == block_count(moe) + 1
    placed = place(moe, Settings(**{**tried.to_json(), "tensor_split": shares}), memory)
    held = {"GPU0": 0, "GPU1": 0, "CPU": 0}
    for tensor in moe.tensors:
        held[placed.device_of(tensor)] += tensor.size_bytes
    assert held["GPU0"] / held["GPU1"] == pytest.approx(2, rel=0.1)
    assert split(moe, tried, memory[:1]) is None


def test_leading_dense_and_mtp_blocks(moe: ModelSpec, tmp_path: Path) -> None:
    blocks = expert_blocks(moe)
    assert blocks[0] == 3
    assert len(blocks) == 59
    placed = place(moe, Settings(4096, 1, 4, cpu_expert_layers=2), (1,))
    assert placed.expert_blocks_on_host == {3, 4}
    assert place(moe, Settings(4096, 1, 4, gpu_layers=2), (1,)).blocks[-2:] == ("CPU", "GPU0")
    assert set(place(moe, BASE).blocks) == {"CPU"}
