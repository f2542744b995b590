"""True shapes of published models: parameters, bytes, cache, experts."""

from __future__ import annotations

from pathlib import Path

import pytest

from moestro.model import LayerKind, ModelSpec, Role, read_model
from tests.shapes import PUBLISHED, write_header
from tests.shapes.published import deepseek_v3, glm_45_air, qwen36_27b, qwen36_35b_a3b

PARAMETERS = {
    "Qwen3.6-35B-A3B": 34_660_610_688 + 844_640_768,  # the second part is the MTP block
    "Qwen3.6-27B": 26_895_998_464 + 424_699_392,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Mixtral-8x7B": 46_702_792_704,
    "Mixtral-8x22B": 140_630_071_296,
    "DeepSeek-V3": 684_489_845_504,
    "DeepSeek-V2-Lite": 15_706_484_224,
    "Qwen1.5-MoE-A2.7B": 14_315_784_192,
    "Qwen2-57B-A14B": 57_408_658_944,
    "OLMoE-1B-7B": 6_919_161_856,
    "gpt-oss-20b": 20_914_757_184,
    "SmolLM2-135M": 134_515_008,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen3-0.6B": 596_049_920,
    "Gemma-3-1B": 999_885_952,
}

# f16 cache bytes per token.
CACHE_PER_TOKEN = {
    "Qwen3.6-35B-A3B": 20_480,
    "Qwen3.6-27B": 65_536,
    "Qwen3-30B-A3B": 2 * 48 * 4 * 128 * 2,
    "Mixtral-8x7B": 2 * 32 * 8 * 128 * 2,
    "DeepSeek-V3": 70_272,
    "DeepSeek-V2-Lite": 27 * 16 * (192 + 128) * 2,  # the old conversion caches every head
    "gpt-oss-20b": 2 * 12 * 8 * 64 * 2,  # half of the layers see a window
    "Gemma-3-1B": 2 * 4 * 256 * 2,  # 4 of 26 layers attend fully
    "LFM2-8B-A1B": 2 * 6 * 8 * 64 * 2,
    "DeepSeek-V4-Flash": 21 * (512 + 128) * 2 // 4 + 20 * 512 * 2 // 128,
}

STATE_PER_SEQUENCE = {
    "Qwen3.6-35B-A3B": 65_863_680,  # 62.8125 MiB
    "LFM2-8B-A1B": 18 * 2048 * 2 * 4,
    "Qwen3-30B-A3B": 0,
}

EXPERTS = {
    "Qwen3.6-35B-A3B": (256, 8, 1, "softmax", 40),
    "Qwen3-30B-A3B": (128, 8, 0, "softmax", 48),
    "Mixtral-8x22B": (8, 2, 0, "softmax", 56),
    "DeepSeek-V3": (256, 8, 1, "sigmoid", 58),
    "DeepSeek-V4-Pro": (384, 6, 1, "sqrt-softplus", 61),
    "Qwen2-57B-A14B": (64, 8, 1, "softmax", 28),
    "OLMoE-1B-7B": (64, 8, 0, "softmax", 16),
    "gpt-oss-20b": (32, 4, 0, "softmax-of-chosen", 24),
    "GLM-4.5-Air": (128, 8, 1, "sigmoid", 45),
    "Granite-3-3B-A800M": (40, 8, 0, "softmax", 32),
    "LFM2-8B-A1B": (32, 4, 0, "sigmoid", 22),
}

# Billions, as the makers count them (without the embedding table).
ACTIVE_BILLIONS = {
    "Qwen3.6-35B-A3B": 2.95,
    "DeepSeek-V3": 36.6,
    "DeepSeek-V4-Flash": 13.3,
    "DeepSeek-V4-Pro": 48.9,
    "Mixtral-8x7B": 12.75,
    "gpt-oss-20b": 3.61,
}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder = tmp_path_factory.mktemp("published")
    found = {}
    for name, make in PUBLISHED.items():
        # A short token list keeps the module quick; its length is no part of these numbers.
        path = write_header(make(), folder / f"{name}.gguf", vocab_tokens=300)
        found[name] = read_model(path)
        path.unlink()
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_is_lost_or_counted_twice(specs: dict[str, ModelSpec], name: str) -> None:
    spec, shape = specs[name], PUBLISHED[name]()
    assert spec.parameters == shape.parameters
    assert len(spec.tensors) == len(shape.tensors)
    assert sum(spec.bytes_by_role.values()) == spec.tensor_bytes
    assert sum(spec.bytes_by_type.values()) == spec.tensor_bytes
    assert 0 < spec.parameters_active <= spec.parameters
    assert 0 < spec.bytes_read_per_token <= spec.tensor_bytes


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_family_is_known_and_sound(specs: dict[str, ModelSpec], name: str) -> None:
    assert specs[name].family_known
    assert specs[name].findings == ()
    assert specs[name].layers is not None


@pytest.mark.parametrize("name", PUBLISHED)
def test_only_norms_and_small_parts_are_other(specs: dict[str, ModelSpec], name: str) -> None:
    assert specs[name].bytes_by_role[Role.OTHER] < 0.002 * specs[name].tensor_bytes


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(specs: dict[str, ModelSpec], name: str) -> None:
    assert specs[name].parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", CACHE_PER_TOKEN)
def test_cache_per_token(specs: dict[str, ModelSpec], name: str) -> None:
    assert specs[name].cache_bytes_per_token == CACHE_PER_TOKEN[name]


@pytest.mark.parametrize("name", STATE_PER_SEQUENCE)
def test_recurrent_state(specs: dict[str, ModelSpec], name: str) -> None:
    assert specs[name].recurrent_bytes_per_sequence == STATE_PER_SEQUENCE[name]


@pytest.mark.parametrize("name", EXPERTS)
def test_experts(specs: dict[str, ModelSpec], name: str) -> None:
    experts = specs[name].experts
    assert experts is not None
    assert (
        experts.count,
        experts.used,
        experts.shared,
        experts.gating,
        experts.layers,
    ) == EXPERTS[name]


@pytest.mark.parametrize("name", ACTIVE_BILLIONS)
def test_active_parameters(specs: dict[str, ModelSpec], name: str) -> None:
    assert specs[name].parameters_active / 1e9 == pytest.approx(ACTIVE_BILLIONS[name], rel=0.005)


def test_without_mtp_the_golden_numbers(tmp_path: Path) -> None:
    for shape, parameters in ((qwen36_35b_a3b(0), 34_660_610_688), (qwen36_27b(0), 26_895_998_464)):
        spec = read_model(write_header(shape, tmp_path / "m.gguf", vocab_tokens=300))
        assert spec.parameters == parameters
        assert spec.mtp_layers == 0


def test_mtp_is_a_part_of_its_own(specs: dict[str, ModelSpec]) -> None:
    for name in ("Qwen3.6-35B-A3B", "Qwen3.6-27B", "DeepSeek-V3", "GLM-4.5-Air"):
        spec = specs[name]
        assert spec.mtp_layers == 1
        assert spec.bytes_by_role[Role.MTP] > 0
        mtp = {tensor.layer for tensor in spec.tensors if tensor.role is Role.MTP}
        assert mtp == {spec.layer_count}
        assert spec.layers is not None
        assert [layer.mtp for layer in spec.layers].count(True) == 1


def test_mtp_costs_nothing_per_token(tmp_path: Path) -> None:
    for with_mtp, without in ((deepseek_v3(1), deepseek_v3(0)), (glm_45_air(1), glm_45_air(0))):
        a = read_model(write_header(with_mtp, tmp_path / "a.gguf", vocab_tokens=300))
        b = read_model(write_header(without, tmp_path / "b.gguf", vocab_tokens=300))
        assert a.parameters_active == b.parameters_active
        assert a.bytes_read_per_token == b.bytes_read_per_token
        assert a.cache_bytes(8192) == b.cache_bytes(8192)


def test_a_tied_table_is_read_as_the_head(specs: dict[str, ModelSpec]) -> None:
    spec = specs["SmolLM2-135M"]
    assert spec.tied_embeddings
    assert spec.bytes_by_role[Role.OUTPUT] == 0
    assert spec.parameters_active == spec.parameters  # dense: everything is read
    untied = specs["Qwen3-30B-A3B"]
    assert not untied.tied_embeddings


def test_routed_experts_are_most_of_a_moe(specs: dict[str, ModelSpec]) -> None:
    spec = specs["Qwen3.6-35B-A3B"]
    routed = sum(t.elements for t in spec.tensors if t.role is Role.ROUTED_EXPERTS)
    assert routed / 34_660_610_688 == pytest.approx(0.929, abs=0.0005)


def test_layer_kinds(specs: dict[str, ModelSpec]) -> None:
    def kinds(name: str) -> dict[LayerKind, int]:
        layers = specs[name].trunk_layers
        assert layers is not None
        return {kind: [layer.kind for layer in layers].count(kind) for kind in LayerKind}

    assert kinds("Qwen3.6-35B-A3B")[LayerKind.RECURRENT] == 30
    assert kinds("Qwen3.6-35B-A3B")[LayerKind.ATTENTION] == 10
    assert kinds("gpt-oss-20b")[LayerKind.WINDOW] == 12
    assert kinds("Gemma-3-1B")[LayerKind.WINDOW] == 22
    assert kinds("DeepSeek-V3")[LayerKind.LATENT] == 61
    assert kinds("LFM2-8B-A1B")[LayerKind.RECURRENT] == 18
    assert kinds("DeepSeek-V4-Flash")[LayerKind.COMPRESSED] == 41


def test_cache_at_a_context(specs: dict[str, ModelSpec]) -> None:
    mib = 1 << 20
    assert specs["Qwen3-30B-A3B"].cache_bytes(8192) == 768 * mib
    assert specs["Qwen3-30B-A3B"].cache_bytes(8192, 1, "q8_0", "q8_0") == 408 * mib
    assert specs["Mixtral-8x7B"].cache_bytes(8192) == 1024 * mib
    assert specs["DeepSeek-V3"].cache_bytes(8192) == 549 * mib
    hybrid = specs["Qwen3.6-35B-A3B"]
    state = hybrid.recurrent_bytes_per_sequence
    assert state is not None
    assert hybrid.cache_bytes(8192) == 160 * mib + state
    assert hybrid.cache_bytes(8192, 4) == 4 * (160 * mib + state)


def test_context_and_rope(specs: dict[str, ModelSpec]) -> None:
    spec = specs["DeepSeek-V3"]
    assert spec.context_length == 163_840
    assert spec.rope_scaling is not None
    assert spec.rope_scaling.original_context == 4096
    assert specs["Qwen3.6-35B-A3B"].rope_scaling is None
