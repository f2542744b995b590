"""Child process of `dry_run`: loads a model's header in the engine and prints its counts.

Usage: python -m moestro.engine.llama_cpp.dry_run_child MODEL
"""

from __future__ import annotations

import ctypes
import os
import sys

from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.binding import LOAD_MODE_NONE
from moestro.engine.llama_cpp.child import FAILED_START, claim_report_stream
from moestro.errors import EngineMismatch


def main() -> int:
    report = claim_report_stream()
    try:
        library = open_library()
    except EngineMismatch as error:
        report.send("failed", **error.to_json())
        return FAILED_START

    params = library.llama_model_default_params()
    params.no_alloc = True
    params.load_mode = LOAD_MODE_NONE
    params.n_gpu_layers = 0

    library.llama_backend_init()
    model = library.llama_model_load_from_file(os.fsencode(sys.argv[1]), params)
    if not model:
        return FAILED_START

    description = ctypes.create_string_buffer(256)
    library.llama_model_desc(model, description, len(description))
    report.send(
        "counts",
        size_bytes=library.llama_model_size(model),
        parameters=library.llama_model_n_params(model),
        description=description.value.decode(errors="replace"),
        layers=library.llama_model_n_layer(model),
        mtp_layers=library.llama_model_n_layer_nextn(model),
        context_length=library.llama_model_n_ctx_train(model),
        embedding_length=library.llama_model_n_embd(model),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
