from __future__ import annotations

import os
import sys
from pathlib import Path

import gguf
import pytest

from moestro.engine.llama_cpp.dry_run import engine_counts
from moestro.errors import EngineStartFailed
from tests.tiny_models import write_tiny


def test_counts_every_tensor(tiny_moe: Path):
    tensors = gguf.GGUFReader(tiny_moe).tensors
    counts = engine_counts(tiny_moe)
    assert counts.size_bytes == sum(int(tensor.n_bytes) for tensor in tensors)
    assert counts.parameters == sum(int(tensor.n_elements) for tensor in tensors)
    assert (counts.layers, counts.mtp_layers) == (4, 1)
    assert counts.context_length == 4096
    assert counts.embedding_length == 64
    assert counts.description.startswith("qwen35moe")


def test_a_sparse_file_with_only_the_header_does_as_well(tiny_moe: Path, tmp_path: Path):
    reader = gguf.GGUFReader(tiny_moe)
    sparse = tmp_path / "sparse.gguf"
    sparse.write_bytes(tiny_moe.read_bytes()[: reader.data_offset])
    os.truncate(sparse, tiny_moe.stat().st_size)
    assert engine_counts(sparse) == engine_counts(tiny_moe)


def test_refused_file_says_why(tmp_path: Path, tiny_moe: Path):
    data = tiny_moe.read_bytes()
    short = tmp_path / "short.gguf"
    short.write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineStartFailed, match=r"short\.gguf is cut short"):
        engine_counts(short)


def test_missing_tensor_is_named(tmp_path: Path):
    broken = write_tiny("llama", tmp_path, skip=("blk.1.ffn_up",))
    with pytest.raises(EngineStartFailed, match=r"lacks the tensor blk\.1\.ffn_up\.weight"):
        engine_counts(broken)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such a name")
def test_a_file_name_that_is_no_text(tiny_dense: Path, tmp_path: Path):
    odd = tmp_path / os.fsdecode(b"odd\xff.gguf")
    odd.symlink_to(tiny_dense)
    assert engine_counts(odd) == engine_counts(tiny_dense)


def test_a_stuck_read_ends(tmp_path: Path):
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(EngineStartFailed, match="did not finish reading"):
        engine_counts(pipe, timeout_seconds=1.0)
