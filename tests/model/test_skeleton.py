"""A model without weights and words, for the engine to plan with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from moestro.model import read_model
from moestro.model.skeleton import write_skeleton
from tests.shapes import PUBLISHED, write_header, write_split


def keys_of(path: Path) -> dict[str, object]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_keeps_everything_but_the_vocabulary(tmp_path: Path):
    shape = PUBLISHED["Qwen3.6-35B-A3B"]().with_vocabulary(2048)
    whole = write_header(shape, tmp_path / "whole.gguf", extra={"test.flags": [True, False]})
    bare = write_skeleton(read_model(whole), tmp_path / "bare.gguf")
    theirs, ours = keys_of(whole), keys_of(bare)
    assert ours.pop("tokenizer.ggml.model") == "no_vocab"
    assert ours.pop("qwen35moe.vocab_size") == 2048
    header = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")
    kept = {key: value for key, value in theirs.items() if not key.startswith("tokenizer.")}
    assert {k: v for k, v in ours.items() if k not in header} == {
        k: v for k, v in kept.items() if k not in header
    }
    assert bare.stat().st_blocks * 512 < 1 << 20


def test_keeps_every_tensor(tmp_path: Path):
    whole = write_header(PUBLISHED["DeepSeek-V4-Flash"]().with_vocabulary(512), tmp_path / "a.gguf")
    bare = write_skeleton(read_model(whole), tmp_path / "b.gguf")
    ours, theirs = read_model(bare), read_model(whole)
    assert ours.tensors == theirs.tensors
    assert ours.layers == theirs.layers
    assert ours.vocabulary == theirs.vocabulary


def test_joins_the_parts_of_a_split_model(tmp_path: Path):
    first, *_ = write_split(PUBLISHED["OLMoE-1B-7B"]().with_vocabulary(512), tmp_path, "olmoe", 3)
    bare = write_skeleton(read_model(first), tmp_path / "bare.gguf")
    spec = read_model(bare)
    assert len(spec.files) == 1
    assert spec.tensor_bytes == read_model(first).tensor_bytes


def test_a_model_without_a_header_of_its_own_has_none(tmp_path: Path):
    whole = write_header(PUBLISHED["SmolLM2-135M"]().with_vocabulary(512), tmp_path / "a.gguf")
    folder = replace(read_model(whole), format="safetensors", skeleton=None)
    with pytest.raises(ValueError, match="safetensors"):
        write_skeleton(folder, tmp_path / "bare.gguf")
