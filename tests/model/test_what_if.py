"""The same model at another size."""

from __future__ import annotations

from pathlib import Path

import pytest

from moestro.model import ModelSpec, Role, read_model
from moestro.model.what_if import bits_per_weight, resized, retyped, type_of_label
from tests.shapes import PUBLISHED, write_header


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    path = tmp_path_factory.mktemp("shapes") / "m.gguf"
    return read_model(write_header(PUBLISHED["Qwen3-30B-A3B"](), path, vocab_tokens=256))


@pytest.mark.parametrize(("name", "bits"), [("Q8_0", 8.5), ("Q4_K", 4.5), ("Q2_K", 2.625)])
def test_bits_per_weight(moe: ModelSpec, name: str, bits: float) -> None:
    other = retyped(moe, name)
    assert other.parameters == moe.parameters
    # The head in Q6_K, the router and the norms in F32 come on top.
    found = bits_per_weight(other.tensor_bytes, other.parameters)
    assert bits <= found <= bits + 0.1


def test_what_is_never_quantized_stays(moe: ModelSpec) -> None:
    other = retyped(moe, "Q2_K")
    assert other.bytes_by_role[Role.ROUTER] == moe.bytes_by_role[Role.ROUTER]
    heads = [tensor.type for tensor in other.tensors if tensor.role is Role.OUTPUT]
    assert "Q6_K" in heads
    assert {t.type for t in other.tensors if len(t.shape) == 1} == {"F32"}


def test_resized(moe: ModelSpec) -> None:
    half = moe.tensor_bytes // 2
    assert resized(moe, half).tensor_bytes == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Q4_K_M", "Q4_K"),
        ("UD-Q2_K_XL", "Q2_K"),
        ("IQ3_XXS", "IQ3_XXS"),
        ("MXFP4_MOE", "MXFP4"),
        ("BF16", "BF16"),
        ("Q4_0", "Q4_0"),
        ("something", None),
    ],
)
def test_labels(label: str, name: str | None) -> None:
    assert type_of_label(label) == name


def test_rows_that_k_quants_cannot_hold(tmp_path: Path) -> None:
    shape = read_model(
        write_header(PUBLISHED["gpt-oss-20b"](), tmp_path / "g.gguf", vocab_tokens=256)
    )
    # Rows of 2880 values are no multiple of 256.
    assert {t.type for t in retyped(shape, "Q4_K").tensors if t.shape[0] == 2880} <= {"Q8_0", "F32"}
