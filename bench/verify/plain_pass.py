"""Child of `cost`: one plain prompt pass with logits for every token, nothing watched.

Usage: python -m bench.verify.plain_pass MODEL TOKENS.npy THREADS; prints JSON on stdout.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

import numpy as np

from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.binding import Batch


def passes(model_path: str, chunks: np.ndarray, threads: int) -> dict[str, Any]:
    """`chunks` [chunks, tokens]; each from an empty cache. Seconds of the passes, loading apart."""
    library = open_library()
    library.llama_backend_init()
    began = time.perf_counter()
    model = library.llama_model_load_from_file(
        os.fsencode(model_path), library.llama_model_default_params()
    )
    length = chunks.shape[1]
    params = library.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = length
    params.n_outputs_max = params.n_outputs_max_per_seq = length
    params.n_threads = params.n_threads_batch = threads
    context = library.llama_init_from_model(model, params)
    vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    loaded = time.perf_counter()
    every = np.ones(length, dtype=np.int8)
    checksum = 0.0
    for chunk in chunks:
        tokens = np.ascontiguousarray(chunk, dtype=np.int32)
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch = Batch()
        batch.n_tokens = length
        batch.token = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.logits = every.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        assert library.llama_decode(context, batch) == 0
        library.llama_synchronize(context)
        logits = np.ctypeslib.as_array(library.llama_get_logits(context), (length, vocabulary))
        checksum += float(logits[-1, 0])
    done = time.perf_counter()
    return {"load_seconds": loaded - began, "pass_seconds": done - loaded, "checksum": checksum}


if __name__ == "__main__":
    path, tokens_path, thread_count = sys.argv[1:]
    # the engine may write to stdout: it gets stderr, the answer the true one
    answer = os.dup(1)
    os.dup2(2, 1)
    found = passes(path, np.load(tokens_path), int(thread_count))
    with os.fdopen(answer, "w") as stream:
        stream.write(json.dumps(found) + "\n")
