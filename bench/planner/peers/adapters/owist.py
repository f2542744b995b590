"""owist-modelfile-lint sizes the GGUF that an Ollama Modelfile names."""

from __future__ import annotations

import importlib
from typing import Any

GIB = 2**30


def answer(question: dict[str, Any]) -> dict[str, Any]:
    sniff = importlib.import_module("owist_modelfile_lint.gguf_sniff")
    resources = importlib.import_module("owist_modelfile_lint.resource_estimate")
    metadata = sniff.read_gguf_metadata(question["gguf"])
    if isinstance(metadata, tuple):
        metadata = next(part for part in metadata if isinstance(part, dict))
    # Ollama's OLLAMA_NUM_PARALLEL multiplies the context; the linter has no word for it.
    tokens = question["context"] * question["parallel"]
    found = resources.estimate_memory(question["gguf"], metadata, tokens)
    said: dict[str, Any] = {
        "weights_bytes": int(found.weights_gb * GIB),
        "why": {
            "compute_bytes": f"a constant {found.overhead_gb:g} GiB",
            "decode_tokens_per_second": "measures bandwidth on the machine it runs on",
            "flags": "gives none",
        },
    }
    if question["cache_type"] == "f16":
        said["cache_bytes"] = int(found.kv_cache_gb * GIB)
        said["total_bytes"] = int(found.total_gb * GIB)
    else:
        said["why"] |= dict.fromkeys(("cache_bytes", "total_bytes"), "knows an f16 cache only")
    if question["hardware"]:
        said["why"]["fits"] = "judges the machine it runs on only"
    return said
