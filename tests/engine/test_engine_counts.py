"""The engine's own count of parameters and tensor bytes, for every shape, against ours.

llama.cpp counts all tensors in the file (`llama_model_loader`: Σ nelements, Σ nbytes), multi-token
prediction included, whether or not it is going to use them. So the numbers must be equal, not near.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from moestro.engine.llama_cpp.dry_run import engine_counts
from moestro.model import read_model
from tests.shapes import PUBLISHED, mxfp4, q4_k_m, write_header, write_split
from tests.tiny_models import TINY

TRUE_VOCABULARY = ("Qwen3.6-35B-A3B", "SmolLM2-135M")
VOCABULARY = 512  # of the others: the engine takes half a second for each 100,000 tokens


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes(name: str, tmp_path: Path) -> None:
    shape = PUBLISHED[name]()
    if name not in TRUE_VOCABULARY:
        shape = shape.with_vocabulary(VOCABULARY)
    types = mxfp4 if name == "gpt-oss-20b" else q4_k_m
    path = write_header(shape, tmp_path / "model.gguf", types=types)
    ours, theirs = read_model(path), engine_counts(path)
    assert ours.tensor_bytes == theirs.size_bytes
    assert ours.parameters == theirs.parameters
    assert ours.layer_count == theirs.layers
    assert ours.mtp_layers == theirs.mtp_layers
    assert ours.context_length == theirs.context_length
    assert ours.embedding_length == theirs.embedding_length


def test_a_split_model(tmp_path: Path) -> None:
    first = write_split(TINY["qwen3moe"](), tmp_path, "tiny", 3)[0]
    ours, theirs = read_model(first), engine_counts(first)
    assert (ours.tensor_bytes, ours.parameters) == (theirs.size_bytes, theirs.parameters)
