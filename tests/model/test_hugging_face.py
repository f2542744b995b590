"""Hugging Face folders: the same model gives the same numbers as its GGUF."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from moestro.errors import (
    ModelCorrupt,
    ModelError,
    ModelNotFound,
    ModelPartMissing,
    ModelTruncated,
    ModelUnsupported,
    NotAModel,
)
from moestro.model import Role, read_model
from moestro.model.roles import role_of
from moestro.model.safetensors import read_safetensors_header
from tests.shapes import Shape, write_header
from tests.shapes.hugging_face import NAMES, to_hugging_face, write_folder, write_safetensors
from tests.tiny_models import TINY

_BASE = {"vocab_size": 320, "max_position_embeddings": 4096, "hidden_size": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_BASE, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "tie_word_embeddings": True},
    "mixtral": {"model_type": "mixtral", **_BASE, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
                "num_experts_per_tok": 2},
    "qwen3moe": {"model_type": "qwen3_moe", **_BASE, "num_hidden_layers": 2, "head_dim": 32,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8,
                 "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2moe": {"model_type": "qwen2_moe", **_BASE, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8,
                 "num_experts_per_tok": 2},
    "deepseek2": {"model_type": "deepseek_v3", **_BASE, "num_hidden_layers": 3,
                  "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8,
                  "num_experts_per_tok": 2, "n_shared_experts": 1, "scoring_func": "sigmoid",
                  "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16,
                  "rope_scaling": {"type": "yarn", "factor": 40.0,
                                   "original_max_position_embeddings": 4096}},
    "qwen35moe": {"model_type": "qwen3_5_moe", "text_config": {
                      "model_type": "qwen3_5_moe_text", **_BASE, "num_hidden_layers": 4,
                      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
                      "linear_conv_kernel_dim": 4, "linear_key_head_dim": 32,
                      "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                      "linear_value_head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2,
                      "mtp_num_hidden_layers": 1,
                      "layer_types": ["linear_attention"] * 3 + ["full_attention"]}},
    "lfm2moe": {"model_type": "lfm2_moe", **_BASE, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8,
                "num_experts_per_tok": 2, "conv_L_cache": 3,
                "layer_types": ["conv", "conv", "full_attention", "conv"]},
}  # fmt: skip


def folder_of(name: str, folder: Path, *, shards: int = 1, drop: str | None = None) -> Path:
    shape = TINY[name]()
    tensors = to_hugging_face(shape, NAMES[name], mtp_prefix=name.startswith("qwen35"))
    kept = [tensor for tensor in tensors if drop is None or not tensor[0].startswith(drop)]
    return write_folder(folder / name, CONFIGS[name], kept, shards=shards)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_says_what_its_gguf_says(name: str, tmp_path: Path) -> None:
    shape: Shape = TINY[name]()
    there = read_model(write_header(shape, tmp_path / "m.gguf"))
    here = read_model(folder_of(name, tmp_path))
    assert here.findings == ()
    assert here.architecture == there.architecture
    assert here.parameters == there.parameters
    assert here.parameters_active == there.parameters_active
    assert here.experts == there.experts
    assert here.mtp_layers == there.mtp_layers
    assert here.layers == there.layers
    assert here.context_length == there.context_length
    assert here.vocabulary == there.vocabulary
    assert here.tied_embeddings == there.tied_embeddings
    assert here.bytes_by_type == {"BF16": 2 * here.parameters}
    elements = dict.fromkeys(Role, 0)
    for tensor in there.tensors:
        elements[tensor.role] += tensor.elements
    assert {role: size // 2 for role, size in here.bytes_by_role.items()} == elements


def test_shards_and_their_index(tmp_path: Path) -> None:
    folder = folder_of("qwen3moe", tmp_path, shards=3)
    spec = read_model(folder)
    assert spec.parameters == TINY["qwen3moe"]().parameters
    assert len(spec.files) == 3
    assert spec.transferred_bytes < 40_000
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelPartMissing, match="1 of 3 weight files"):
        read_model(folder)


def test_declared_mtp_without_tensors(tmp_path: Path) -> None:
    spec = read_model(folder_of("qwen35moe", tmp_path, drop="mtp."))
    assert [(f.severity, f.code) for f in spec.findings] == [("fail", "mtp-tensors-missing")]
    assert spec.mtp_layers == 0


def test_lost_sigmoid(tmp_path: Path) -> None:
    folder = folder_of("deepseek2", tmp_path)
    config = {k: v for k, v in CONFIGS["deepseek2"].items() if k != "scoring_func"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    spec = read_model(folder)
    assert [(f.severity, f.code) for f in spec.findings] == [("fail", "gating-function-lost")]


def test_vision_parts_are_a_projector_and_no_layers(tmp_path: Path) -> None:
    folder = folder_of("qwen3moe", tmp_path)
    write_safetensors(
        folder / "model.safetensors",
        [
            *to_hugging_face(TINY["qwen3moe"](), NAMES["qwen3moe"], mtp_prefix=False),
            ("model.visual.blocks.7.attn.qkv.weight", (64, 64), "BF16"),
        ],
    )
    spec = read_model(folder)
    assert spec.projector is not None
    assert spec.projector.size_bytes == 64 * 64 * 2
    assert spec.bytes_by_role[Role.OTHER] >= 64 * 64 * 2
    plain = read_model(folder_of("qwen3moe", tmp_path / "plain"))
    assert spec.parameters_active == plain.parameters_active


def test_quantized_checkpoints_count_parameters_and_not_scales(tmp_path: Path) -> None:
    config = {**CONFIGS["llama"], "quantization_config": {"quant_method": "gptq", "bits": 4}}
    tensors = [
        ("model.layers.0.mlp.up_proj.qweight", (8, 128), "I32"),
        ("model.layers.0.mlp.up_proj.scales", (1, 128), "F16"),
        ("model.layers.0.mlp.up_proj.qzeros", (1, 16), "I32"),
        ("model.layers.0.self_attn.q_proj.weight", (64, 64), "F8_E4M3"),
        ("model.layers.0.self_attn.q_proj.weight_scale_inv", (1, 1), "F32"),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", (4, 8, 2, 16), "U8"),
        ("model.layers.0.mlp.experts.gate_up_proj_scales", (4, 8, 2), "U8"),
        ("model.embed_tokens.weight", (320, 64), "BF16"),
    ]
    spec = read_model(write_folder(tmp_path / "m", config, tensors))
    assert spec.quantization == "gptq"
    assert spec.parameters == 64 * 128 + 64 * 64 + 2 * 4 * 8 * 2 * 16 + 320 * 64
    assert sum(spec.bytes_by_role.values()) == spec.tensor_bytes


def test_chat_template(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path)
    assert read_model(folder).chat_template is None
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ a }}"}', encoding="utf-8")
    assert read_model(folder).chat_template == "{{ a }}"
    (folder / "chat_template.jinja").write_text("{{ b }}", encoding="utf-8")
    assert read_model(folder).chat_template == "{{ b }}"


def test_an_unknown_type_keeps_its_sizes(tmp_path: Path) -> None:
    tensors = to_hugging_face(TINY["llama"](), NAMES["llama"], mtp_prefix=False)
    folder = write_folder(tmp_path / "m", {**CONFIGS["llama"], "model_type": "novel"}, tensors)
    spec = read_model(folder)
    assert spec.architecture == "novel"
    assert spec.parameters == TINY["llama"]().parameters
    assert [finding.code for finding in spec.findings] == ["architecture-unknown"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}),
        ("config.json", {"_class_name": "WanTransformer3DModel", "_diffusers_version": "0.3"}),
    ],
)
def test_diffusers_folders_are_named(tmp_path: Path, file: str, content: dict[str, str]) -> None:
    (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelUnsupported, match="image or video model"):
        read_model(tmp_path)


@pytest.mark.parametrize("with_config", [True, False])
def test_diffusion_weights_are_known_by_their_names(tmp_path: Path, with_config: bool) -> None:
    tensors = [
        ("net.x_embedder.proj.1.weight", (64, 64), "BF16"),
        ("net.blocks.0.adaln_modulation_mlp.1.weight", (64, 64), "BF16"),
    ]
    write_safetensors(tmp_path / "anima.safetensors", tensors)
    if with_config:
        (tmp_path / "config.json").write_text('{"model_type": "anima"}', encoding="utf-8")
    with pytest.raises(ModelUnsupported, match="image or video model"):
        read_model(tmp_path)


def raw_header(entries: object) -> bytes:
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw


BAD: dict[str, tuple[bytes, type[ModelError], str]] = {
    "short": (b"abc", ModelTruncated, "3 bytes"),
    "no header": (struct.pack("<Q", 10) + b"garbage!!!", NotAModel, "not a safetensors"),
    "absurd length": (struct.pack("<Q", 1 << 50) + b"{}", ModelCorrupt, "claims a header"),
    "cut in the header": (struct.pack("<Q", 500) + b'{"a": ', ModelTruncated, "inside its header"),
    "no JSON": (struct.pack("<Q", 4) + b"{oh}", ModelCorrupt, "not valid JSON"),
    "deep": (struct.pack("<Q", 200_005) + b'{"a":' + b"[" * 200_000, ModelCorrupt, "JSON"),
    "unknown type": (
        raw_header({"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 1]}}),
        ModelCorrupt,
        "unknown type",
    ),
    "no shape": (
        raw_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 1]}}),
        ModelCorrupt,
        "no sound shape",
    ),
    "no place": (
        raw_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}),
        ModelCorrupt,
        "no sound place",
    ),
    "wrong place": (
        raw_header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}),
        ModelCorrupt,
        "does not fit",
    ),
    "overlap": (
        raw_header(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            }
        ),
        ModelCorrupt,
        "over the tensor",
    ),
    "cut off": (
        raw_header({"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}),
        ModelTruncated,
        "cut off",
    ),
    "overflow": (
        raw_header({"a": {"dtype": "F32", "shape": [1 << 61, 1 << 61], "data_offsets": [0, 4]}}),
        ModelCorrupt,
        "does not fit",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_safetensors(case: str, tmp_path: Path) -> None:
    content, kind, words = BAD[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(kind, match=words) as caught:
        read_safetensors_header(path)
    assert type(caught.value) is kind
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "no JSON object"),
        ("{}", "model type"),
        ('{"model_type": 3}', "model type"),
        ('{"model_type": "llama", "num_hidden_layers": 1e99}', "whole number"),
        ('{"model_type": "llama", "num_hidden_layers": 99999999}', "between"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_configs(content: str, words: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("lm_head.weight", (2, 2), "F32")])
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelCorrupt, match=words):
        read_model(tmp_path)


def test_bad_indexes_and_missing_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama"]), encoding="utf-8")
    with pytest.raises(ModelPartMissing, match="no weights"):
        read_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelUnsupported, match="pickles"):
        read_model(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}", encoding="utf-8")
    with pytest.raises(ModelCorrupt, match="no weight map"):
        read_model(tmp_path)
    index.write_text('{"weight_map": {"a": "../../etc/passwd"}}', encoding="utf-8")
    with pytest.raises(ModelCorrupt, match="outside its folder"):
        read_model(tmp_path)


def test_weights_without_config(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("lm_head.weight", (2, 2), "F32")])
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.3.block_sparse_moe.input_linear.weight", Role.OTHER),
        ("model.layers.3.mlp.experts.gate_up_proj", Role.ROUTED_EXPERTS),
        ("model.layers.3.mlp.router.weight", Role.ROUTER),
        ("model.layers.3.self_attn.sinks", Role.ATTENTION),
        ("model.language_model.layers.3.linear_attn.A_log", Role.RECURRENT),
        ("model.language_model.embed_tokens.weight", Role.EMBEDDING),
        ("layers.3.attn.wq_a.weight", Role.ATTENTION),
        ("layers.3.ffn.experts.0.w1.weight", Role.ROUTED_EXPERTS),
        ("layers.3.ffn.shared_experts.w1.weight", Role.SHARED_EXPERTS),
        ("layers.3.ffn.gate.weight", Role.ROUTER),
        ("embed.weight", Role.EMBEDDING),
        ("head.weight", Role.OUTPUT),
        ("mtp.0.attn.wq_a.weight", Role.MTP),
        ("vision_tower.layers.0.attn.qkv.weight", Role.OTHER),
        ("model.norm.weight", Role.OTHER),
        ("blk.0.ffn_gate.3.weight", Role.ROUTED_EXPERTS),
        ("blk.0.ffn_gate_inp_shexp.weight", Role.SHARED_EXPERTS),
        ("blk.0.ffn_gate_inp.weight", Role.ROUTER),
        ("blk.0.attn_norm.weight", Role.OTHER),
        ("blk.0.attn_qkv.weight", Role.ATTENTION),
        ("blk.0.time_mix_key.weight", Role.RECURRENT),
        ("output_norm.weight", Role.OTHER),
        ("output.weight", Role.OUTPUT),
        ("rope_freqs.weight", Role.OTHER),
    ],
)
def test_roles_by_the_common_rules(name: str, role: Role) -> None:
    assert role_of(name) is role
