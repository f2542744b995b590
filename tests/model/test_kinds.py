"""GGUF files that are no language model, and language models that contradict themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moestro.errors import ModelUnsupported
from moestro.findings import Severity
from moestro.model import Role, read_model
from moestro.model.projector import choose_projector
from tests.model import crafted
from tests.model.crafted import gguf, pair, tensor, write
from tests.shapes import Shape, encode_header, write_header
from tests.shapes.published import deepseek_v3, glm_45_air, qwen36_35b_a3b
from tests.tiny_models import TINY


def named(architecture: str, **keys: Any) -> bytes:
    pairs = [pair("general.architecture", architecture)]
    pairs += [pair(key.replace("__", "."), value) for key, value in keys.items()]
    return gguf(pairs, [tensor("a", (32,))])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (named("clip"), "projector"),
        (named("clip", general__type="mmproj"), "projector"),
        (named("llama", general__type="adapter"), "LoRA adapter"),
        (named("llama", general__type="imatrix"), "importance matrix"),
        (named("flux"), "an image model"),
        (named("sd3"), "an image model"),
        (named("qwen_image"), "an image model"),
        (named("Anima"), "an image model"),
        (named("ltxv"), "a video model"),
        (named("wan"), "a video model"),
        (named("sulphur"), "a video model"),
    ],
)
def test_other_kinds_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "thing.gguf", content)
    with pytest.raises(ModelUnsupported, match=words) as caught:
        read_model(path)
    assert caught.value.hint


@pytest.mark.parametrize("metadata", [{"general.architecture": "novelty"}, {"a": 1}])
def test_diffusion_models_are_known_by_their_tensors(
    metadata: dict[str, Any], tmp_path: Path
) -> None:
    tensors = [
        ("double_blocks.0.img_attn.qkv.weight", (64, 64), "F16"),
        ("img_in.weight", (64, 64), "F16"),
    ]
    header, size = encode_header(metadata, tensors)
    path = write(tmp_path / "x.gguf", header + bytes(size))
    with pytest.raises(ModelUnsupported, match="image or video model"):
        read_model(path)


def test_an_unknown_family_keeps_its_sizes_and_says_what_it_assumes(tmp_path: Path) -> None:
    shape = TINY["qwen3"]()
    shape.metadata = {key.replace("qwen3.", "novel."): v for key, v in shape.metadata.items()}
    shape.metadata["general.architecture"] = "novel"
    spec = read_model(write_header(shape, tmp_path / "m.gguf"))
    known = read_model(write_header(TINY["qwen3"](), tmp_path / "k.gguf"))
    assert not spec.family_known
    assert spec.bytes_by_role == known.bytes_by_role
    assert spec.cache_bytes(4096) == known.cache_bytes(4096)
    (finding,) = spec.findings
    assert (finding.severity, finding.code) == (Severity.INFO, "architecture-unknown")
    assert finding.evidence is not None
    assert "plain attention" in finding.evidence


def test_an_unknown_cache_is_unknown_and_not_zero(tmp_path: Path) -> None:
    shape = TINY["qwen3"]()
    shape.metadata = {key.replace("qwen3.", "novel."): v for key, v in shape.metadata.items()}
    shape.metadata |= {"general.architecture": "novel", "novel.ssm.state_size": 16}
    spec = read_model(write_header(shape, tmp_path / "m.gguf"))
    assert spec.layers is None
    assert spec.cache_bytes(4096) is None
    assert spec.cache_bytes_per_token is None
    assert spec.recurrent_bytes_per_sequence is None
    assert spec.parameters == shape.parameters


def codes(shape: Shape, path: Path, **options: Any) -> list[tuple[str, str]]:
    spec = read_model(write_header(shape, path, vocab_tokens=300, **options))
    return [(str(finding.severity), finding.code) for finding in spec.findings]


@pytest.mark.parametrize("make", [qwen36_35b_a3b, deepseek_v3, glm_45_air])
def test_mtp_declared_without_tensors(make: Any, tmp_path: Path) -> None:
    shape = make()
    last = shape.metadata[f"{shape.architecture}.block_count"] - 1
    wanted = [("fail", "mtp-tensors-missing")]
    assert codes(shape, tmp_path / "a.gguf", skip=("nextn.",)) == wanted
    assert codes(shape, tmp_path / "b.gguf", skip=(f"blk.{last}.",)) == wanted
    assert codes(shape, tmp_path / "c.gguf") == []


def test_missing_mtp_names_the_block(tmp_path: Path) -> None:
    path = write_header(qwen36_35b_a3b(), tmp_path / "m.gguf", vocab_tokens=300, skip=("blk.40.",))
    spec = read_model(path)
    assert spec.mtp_layers == 0
    assert spec.findings[0].evidence is not None
    assert "block 40" in spec.findings[0].evidence


def test_lost_sigmoid(tmp_path: Path) -> None:
    wanted = [("fail", "gating-function-lost")]
    key = "deepseek2.expert_gating_func"
    assert codes(deepseek_v3(), tmp_path / "a.gguf", drop_keys=(key,)) == wanted
    assert codes(deepseek_v3(), tmp_path / "b.gguf", extra={key: 1}) == wanted
    assert codes(deepseek_v3(), tmp_path / "c.gguf", extra={key: 2}) == []


def test_v2_has_no_bias_and_its_softmax_is_right(tmp_path: Path) -> None:
    shape = TINY["deepseek2"]()
    key = "deepseek2.expert_gating_func"
    options = {"skip": ("exp_probs_b",), "drop_keys": (key,)}
    assert codes(shape, tmp_path / "m.gguf", **options) == []


def test_families_whose_engine_default_is_sigmoid_may_be_silent(tmp_path: Path) -> None:
    path = write_header(
        glm_45_air(), tmp_path / "m.gguf", vocab_tokens=300,
        drop_keys=("glm4moe.expert_gating_func",),
    )  # fmt: skip
    spec = read_model(path)
    assert spec.findings == ()
    assert spec.experts is not None
    assert spec.experts.gating == "sigmoid"


def test_experts_without_a_number_of_used_ones(tmp_path: Path) -> None:
    shape = TINY["qwen3moe"]()
    path = write_header(shape, tmp_path / "m.gguf", drop_keys=("qwen3moe.expert_used_count",))
    spec = read_model(path)
    assert spec.experts is not None
    assert spec.experts.used == spec.experts.count
    assert [finding.code for finding in spec.findings] == ["experts-used-unknown"]


def test_experts_of_old_mixtral_files_lie_apart(tmp_path: Path) -> None:
    metadata = {
        **crafted.MINIMAL,
        "llama.expert_count": 2,
        "llama.expert_used_count": 1,
    }
    tensors = [("token_embd.weight", (32, 64), "F32"), ("output.weight", (32, 64), "F32")]
    tensors += [
        (f"blk.0.ffn_{part}.{expert}.weight", (32, 32), "F32")
        for part in ("gate", "up", "down")
        for expert in range(2)
    ]
    header, size = encode_header(metadata, tensors)
    spec = read_model(write(tmp_path / "m.gguf", header + bytes(size)))
    assert spec.bytes_by_role[Role.ROUTED_EXPERTS] == 6 * 32 * 32 * 4
    assert spec.parameters_active == 3 * 32 * 32 + 32 * 64


def test_the_projector_beside_a_model(tmp_path: Path) -> None:
    path = write(tmp_path / "Model-Q4_K_M.gguf", crafted.good())
    assert read_model(path).projector is None
    write(tmp_path / "mmproj-Model-f16.gguf", b"GGUF....")
    projector = read_model(path).projector
    assert projector is not None
    assert projector.location == str(tmp_path / "mmproj-Model-f16.gguf")
    assert projector.size_bytes == 8


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], None),
        (["a.gguf", "b.gguf"], None),
        (["mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["mmproj-Other-f16.gguf", "mmproj-Model-f16.gguf"], "mmproj-Model-f16.gguf"),
        (["Model-mmproj-q8_0.gguf"], "Model-mmproj-q8_0.gguf"),
    ],
)
def test_choice_of_a_projector(names: list[str], chosen: str | None) -> None:
    assert choose_projector(names, "Model-Q4_K_M.gguf") == chosen
