from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from moestro.model.digests import plain_values
from moestro.model.gguf import read_gguf_header
from moestro.model.source import FileSource
from tests.model.crafted import MINIMAL, TENSORS
from tests.shapes.write import encode_header, encode_value

TOKENS = [f"token {number}" for number in range(3000)]
SCORES = [float(number) for number in range(2000)]
KEYS = {
    **MINIMAL,
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": SCORES,
    "some.numbers": [1, 2, 3],
    "some.words": ["a", "b"],
    "some.text": "short",
    "some.long": "x" * 5000,
    "some.flag": True,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    header, data_bytes = encode_header(KEYS, TENSORS)
    path = tmp_path / "keys.gguf"
    path.write_bytes(header + bytes(data_bytes))
    return path


def test_long_values_are_the_hash_of_their_encoding(path: Path) -> None:
    with FileSource(path) as source:
        header = read_gguf_header(source)
        values = plain_values(source, header, header.metadata)
    assert values["some.numbers"] == (1, 2, 3)
    assert values["some.text"] == "short"
    assert values["some.flag"] is True
    assert values["llama.block_count"] == 1
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "some.words", "some.long"):
        encoded = encode_value(key, KEYS[key])[4:]  # without the kind
        assert values[key] == f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def test_spans_are_where_the_values_lie(path: Path) -> None:
    with FileSource(path) as source:
        header = read_gguf_header(source)
    raw = path.read_bytes()
    assert set(header.spans) == set(KEYS)
    for key, (begin, end) in header.spans.items():
        assert raw[begin:end] == encode_value(key, KEYS[key])[4:]
