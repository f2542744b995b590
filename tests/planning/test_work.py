"""Operations against what is known of the same models in another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moestro.model import ModelSpec, Role, read_model
from moestro.planning.work import (
    Attention,
    ExpertProduct,
    Pass,
    Product,
    Recurrent,
    Small,
    attention_shapes,
    operations,
    product_types,
)
from tests.shapes import PUBLISHED, write_header

Reader = Callable[[str], ModelSpec]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder: Path = tmp_path_factory.mktemp("headers")
    known: dict[str, ModelSpec] = {}

    def read(name: str) -> ModelSpec:
        if name not in known:
            shape = PUBLISHED[name]()
            known[name] = read_model(write_header(shape, folder / f"{name}.gguf", vocab_tokens=300))
        return known[name]

    return read


def on_cpu(_: object) -> str:
    return "CPU"


def multiplied(model: ModelSpec, batch: Pass) -> int:
    """Weights that the products of a pass touch, of experts those that one token uses."""
    found = operations(model, batch, on_cpu)
    dense = sum(item.elements for item in found if isinstance(item, Product))
    routed = sum(item.elements * item.used for item in found if isinstance(item, ExpertProduct))
    return dense + routed


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_one_token_multiplies_with_every_active_weight(model: Reader, name: str) -> None:
    spec = model(name)
    # The rest are vectors, convolutions and tables, which are looked up or applied.
    assert multiplied(spec, Pass(1)) == pytest.approx(spec.parameters_active, rel=0.004)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_layer_mixes_tokens(model: Reader, name: str) -> None:
    spec = model(name)
    found = operations(spec, Pass(1, 1, 100), on_cpu)
    mixing = [item for item in found if isinstance(item, Attention | Recurrent)]
    blocks = [layer for layer in spec.trunk_layers or () if layer.index < spec.layer_count]
    if blocks:
        assert len(mixing) == sum(max(len(layer.stores), 1) for layer in blocks)


def test_attention_of_grouped_queries(model: Reader) -> None:
    spec = model("Qwen3-30B-A3B")
    (first, *_) = [
        item for item in operations(spec, Pass(4, 2, 1000), on_cpu) if isinstance(item, Attention)
    ]
    assert (first.width, first.head, first.queries, first.streams) == (32 * 256, 128, 2, 2)
    assert first.cells == pytest.approx(1001.5)
    assert attention_shapes(spec, "Q8_0", "F16") == {(128, 128, "Q8_0", "F16", 4)}


def test_attention_over_a_latent_cache(model: Reader) -> None:
    spec = model("DeepSeek-V3")
    found = [
        item for item in operations(spec, Pass(1, 1, 10), on_cpu) if isinstance(item, Attention)
    ]
    assert {(item.width, item.head, item.latent) for item in found} == {
        (128 * (576 + 512), 576, True)
    }
    assert attention_shapes(spec) == {(576, 512, "F16", "F16", 1)}


def test_a_window_bounds_the_cells(model: Reader) -> None:
    spec = model("gpt-oss-20b")
    found = [
        item for item in operations(spec, Pass(1, 1, 5000), on_cpu) if isinstance(item, Attention)
    ]
    assert sorted({item.cells for item in found}) == [128, 5001]


def test_states_of_recurrent_layers(model: Reader) -> None:
    spec = model("Qwen3.6-35B-A3B")
    found = [item for item in operations(spec, Pass(1), on_cpu) if isinstance(item, Recurrent)]
    assert len(found) == 30
    assert {(item.name, item.values) for item in found} == {("gated_delta_net", 32 * 128 * 128)}


def test_only_tokens_with_an_output_leave_the_last_block(model: Reader) -> None:
    spec = model("Qwen3-30B-A3B")
    experts = [
        item
        for item in operations(spec, Pass(512, 1, 0, 1), on_cpu)
        if isinstance(item, ExpertProduct)
    ]
    assert [item.tokens for item in experts[:3]] == [512, 512, 512]
    assert [item.tokens for item in experts[-3:]] == [1, 1, 1]


def test_the_head_sees_outputs_only(model: Reader) -> None:
    found = operations(model("Qwen3-30B-A3B"), Pass(512, 1, 0, 1), on_cpu)
    (head,) = [item for item in found if isinstance(item, Product) and item.kind == "head"]
    assert head.columns == 1


def test_mtp_blocks_are_a_pass_of_their_own(model: Reader) -> None:
    spec = model("Qwen3.6-35B-A3B")
    trunk = operations(spec, Pass(1), on_cpu)
    draft = operations(spec, Pass(1), on_cpu, mtp=True)
    assert len([item for item in draft if isinstance(item, Attention)]) == 1
    assert len(draft) < len(trunk) / 10


def test_each_operation_runs_where_its_tensor_lies(model: Reader) -> None:
    spec = model("Qwen3-30B-A3B")
    found = operations(
        spec, Pass(1), lambda tensor: "CPU" if tensor.role is Role.ROUTED_EXPERTS else "GPU0"
    )
    assert {item.device for item in found if isinstance(item, ExpertProduct)} == {"CPU"}
    assert {item.device for item in found if isinstance(item, Attention | Small)} == {"GPU0"}


def test_types_that_are_multiplied_with(model: Reader) -> None:
    assert product_types(model("Qwen3-30B-A3B")) == {"F32", "Q4_K", "Q6_K"}
