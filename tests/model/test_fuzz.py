"""Hostile headers: only moestro's own errors come out, soon, and without taking memory."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moestro.errors import MoestroError
from moestro.model import read_model
from moestro.model.cursor import MAX_HEADER_BYTES
from moestro.model.gguf import (
    MAX_KEPT_ITEMS,
    MAX_KEPT_TEXT_BYTES,
    MAX_PAIRS,
    read_gguf_header,
)
from moestro.model.hf_config import gguf_keys, text_config
from moestro.model.reference import parse_reference
from moestro.model.safetensors import read_safetensors_header
from tests.model import crafted
from tests.model.crafted import gguf, pair, raw_pair, tensor, text
from tests.shapes import encode_header, typed_tensors
from tests.shapes.hugging_face import write_safetensors
from tests.shapes.write import tokenizer
from tests.tiny_models import TINY

SECONDS = 20.0  # of CPU: a guard against hangs; honest work takes milliseconds, traced or not
MEMORY_BYTES = 48 << 20

bounded = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class MemorySource:
    """A byte source that pretends to be a file of any length."""

    first_read_bytes = 1 << 16

    def __init__(
        self, content: bytes, size_bytes: int | None = None, endless: bool = False
    ) -> None:
        self.content = content
        self.endless = endless
        self.size_bytes = size_bytes
        self.transferred_bytes = 0
        self.name = self.location = "fuzz.gguf"

    def read_at(self, offset: int, length: int) -> bytes:
        data = self.content[offset : offset + length]
        if self.endless:
            data = data.ljust(length, b"\x01")
        self.transferred_bytes += len(data)
        return data

    def close(self) -> None:
        pass


def survives(action: Any) -> MoestroError | None:
    """Runs `action` under a guard of time and memory; only a MoestroError may come out."""
    tracemalloc.start()
    began = time.process_time()
    error = None
    try:
        action()
    except MoestroError as caught:
        error = caught
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.process_time() - began < SECONDS
    assert peak < MEMORY_BYTES
    if error is not None:
        assert error.sentence
        assert len(error.sentence) < 2000
    return error


def read(content: bytes, path: Path) -> MoestroError | None:
    path.write_bytes(content)
    return survives(lambda: read_model(path))


def sound_headers() -> list[bytes]:
    found = []
    for name in ("qwen35moe", "deepseek2", "lfm2moe", "gemma3", "gpt-oss"):
        shape = TINY[name]()
        metadata = {**shape.metadata, **tokenizer(320, "{{ x }}")}
        found.append(encode_header(metadata, typed_tensors(shape))[0])
    return [*found, crafted.good()]


SOUND = sound_headers()


@bounded
@given(content=st.binary(max_size=4096))
def test_random_bytes(content: bytes, tmp_path: Path) -> None:
    assert read(content, tmp_path / "m.gguf") is not None
    read(b"GGUF\x03\0\0\0" + content, tmp_path / "m.gguf")


@bounded
@given(data=st.data())
def test_sound_headers_with_some_bytes_changed(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        wide = data.draw(st.sampled_from([1, 4, 8]))
        value = data.draw(
            st.one_of(
                st.integers(0, 255),
                st.sampled_from([0, 1, 0x7F, 0xFF, 1 << 31, (1 << 32) - 1]),
                st.integers(0, (1 << 64) - 1),
            )
        )
        raw = (value & ((1 << (8 * wide)) - 1)).to_bytes(wide, "little")
        content[at : at + wide] = raw
    read(bytes(content) + bytes(1 << 16), tmp_path / "m.gguf")


@bounded
@given(data=st.data())
def test_sound_headers_cut_and_spliced(data: st.DataObject, tmp_path: Path) -> None:
    one, other = data.draw(st.sampled_from(SOUND)), data.draw(st.sampled_from(SOUND))
    cut = data.draw(st.integers(0, len(one)))
    start = data.draw(st.integers(0, len(other)))
    read(one[:cut] + other[start:], tmp_path / "m.gguf")


VALUES = st.one_of(
    st.integers(0, (1 << 32) - 1),
    st.floats(width=32),
    st.booleans(),
    st.text(max_size=20),
    st.lists(st.integers(0, (1 << 31) - 1), min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=8),
    st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1]),
)


@bounded
@given(data=st.data())
def test_honest_format_with_absurd_values(data: st.DataObject, tmp_path: Path) -> None:
    """Well-formed files whose hyperparameters make no sense."""
    shape = TINY[data.draw(st.sampled_from(sorted(TINY)))]()
    metadata = dict(shape.metadata)
    own = [key for key in metadata if key.startswith(shape.architecture)]
    for key in data.draw(st.lists(st.sampled_from(own), min_size=1, max_size=4)):
        metadata[key] = data.draw(VALUES)
    header, size = encode_header(metadata, typed_tensors(shape))
    path = tmp_path / "m.gguf"
    path.write_bytes(header + bytes(size))

    def everything() -> None:
        spec = read_model(path)
        assert sum(spec.bytes_by_role.values()) == spec.tensor_bytes
        assert spec.parameters_active <= spec.parameters
        assert spec.cache_bytes(4096, 4) is None or spec.layers is not None

    survives(everything)


ABSURD = [0, 1, 255, 1 << 16, 1 << 20, 1 << 27, 1 << 31, 1 << 32, 1 << 40, 1 << 62, (1 << 64) - 1]


@pytest.mark.parametrize("count", ABSURD)
@pytest.mark.parametrize("endless", [False, True])
def test_absurd_claims(count: int, endless: bool) -> None:
    """The same claims against a file that ends, and against a server that never stops sending."""
    claim = struct.pack("<Q", count)
    for content in (
        gguf([], [], pair_count=count, data=64),
        gguf([], [], tensor_count=count, data=64),
        gguf([claim], [], data=64),
        gguf([raw_pair("a", 8, claim)], [], data=64),
        *(gguf([raw_pair("a", 9, struct.pack("<I", k) + claim)], [], data=64) for k in range(13)),
        gguf([raw_pair("a", 9, struct.pack("<IQ", 8, 9000) + claim)], [], data=64),
        gguf([], [tensor("a", (max(count, 1), max(count, 1)))], data=64),
        gguf([], [tensor("a", (32,), offset=count)], data=64),
    ):
        source = MemorySource(content, endless=endless)
        survives(lambda source=source: read_gguf_header(source))  # type: ignore[misc]
        assert source.transferred_bytes <= MAX_HEADER_BYTES + (4 << 20)


def test_many_long_texts_do_not_pile_up() -> None:
    one = text(b"x" * MAX_KEPT_TEXT_BYTES)
    pairs = [raw_pair(f"k{number}", 8, one) for number in range(60)]
    source = MemorySource(gguf(pairs, []))
    assert survives(lambda: read_gguf_header(source)) is not None


def test_many_small_lists_do_not_pile_up() -> None:
    one = struct.pack("<IQ", 7, MAX_KEPT_ITEMS) + b"\x01" * MAX_KEPT_ITEMS
    pairs = [raw_pair(f"k{number}", 9, one) for number in range(8000)]
    source = MemorySource(gguf(pairs, []))
    assert survives(lambda: read_gguf_header(source)) is not None


def test_the_most_keys_allowed_are_read_in_time() -> None:
    pairs = [pair(f"k{number}", 1) for number in range(MAX_PAIRS)]
    source = MemorySource(gguf(pairs, []))
    assert survives(lambda: read_gguf_header(source)) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
CONFIG_KEYS = [
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "layer_types",
    "sliding_window",
    "text_config",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "linear_conv_kernel_dim",
    "conv_L_cache",
    "compress_ratios",
    "rope_scaling",
    "scoring_func",
    "num_nextn_predict_layers",
    "quantization_config",
]


@bounded
@given(
    config=st.dictionaries(st.sampled_from(CONFIG_KEYS), JSON | st.integers(0, 64)),
    kind=st.sampled_from(["llama", "qwen3_5_moe", "deepseek_v3", "lfm2", "gemma3", "novel"]),
)
def test_absurd_configs(config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    config = {**config, "model_type": kind}
    survives(lambda: gguf_keys(text_config(config)))
    tensors = [("model.layers.0.mlp.experts.0.up_proj.weight", (4, 4), "F32")]
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    survives(lambda: read_model(tmp_path))


@bounded
@given(content=st.binary(max_size=512), entries=JSON)
def test_absurd_safetensors(content: bytes, entries: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for raw in (content, json.dumps(entries).encode(), json.dumps({"a": entries}).encode()):
        path.write_bytes(struct.pack("<Q", len(raw)) + raw)
        survives(lambda: read_safetensors_header(path))


@bounded
@given(reference=st.text(max_size=60) | st.text(max_size=40).map(lambda tail: "hf:" + tail)
       | st.text(max_size=40).map(lambda tail: "http://" + tail))  # fmt: skip
def test_absurd_references(reference: str) -> None:
    survives(lambda: parse_reference(reference))
