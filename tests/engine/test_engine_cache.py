"""The engine's own cache sizes against `ModelSpec.cache_bytes`, for every kind of cache.

The model is loaded from its header alone; the context is made without memory (`no_alloc`). What the
caches would take stands in the engine's log, in MiB with two digits.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from moestro.model import read_model
from tests.shapes import PUBLISHED, write_header

CHILD = """
import ctypes, sys
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.binding import LOAD_MODE_NONE, ContextParams, flush_log

library = open_library()
params = library.llama_model_default_params()
params.no_alloc, params.load_mode, params.n_gpu_layers = True, LOAD_MODE_NONE, 0
library.llama_backend_init()
model = library.llama_model_load_from_file(sys.argv[1].encode(), params)
context, parallel = int(sys.argv[2]), int(sys.argv[3])
wanted = library.llama_context_default_params()
wanted.n_ctx, wanted.n_seq_max, wanted.n_ubatch = context * parallel, parallel, 512
wanted.swa_full = wanted.kv_unified = False
make = library.llama_init_from_model
make.restype, make.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ContextParams]
assert make(model, wanted)
flush_log(library)
"""
SIZES = re.compile(
    r"(?:llama_kv_cache|llama_memory_recurrent): +size = +([\d.]+) MiB"
    r"|DSV4 \w+ state buffer size = +([\d.]+) MiB"
)
MIB = 1 << 20

# One for each kind of cache: heads, latent, latent of old files, windows, states, compressed.
NAMES = (
    "Qwen3-30B-A3B",
    "DeepSeek-V3",
    "DeepSeek-V2-Lite",
    "gpt-oss-20b",
    "Gemma-3-1B",
    "Qwen3.6-35B-A3B",
    "LFM2-8B-A1B",
    "DeepSeek-V4-Flash",
)


@pytest.mark.parametrize("name", NAMES)
def test_cache_sizes(name: str, tmp_path: Path) -> None:
    path = write_header(PUBLISHED[name]().with_vocabulary(512), tmp_path / "model.gguf")
    spec = read_model(path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), "1000", "3"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = [float(one or other) for one, other in SIZES.findall(done.stderr)]
    ours = spec.cache_bytes(1000, 3)
    assert sizes
    assert ours is not None
    assert ours / MIB == pytest.approx(sum(sizes), abs=0.006 * len(sizes))
