"""The self-test of the C binding: known defaults, seen through our struct layouts.

A field that moved by one byte between releases would not fail loudly; it would set another option.
So every default below is compared before any struct is handed to the engine.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from types import MappingProxyType

from moestro.engine.llama_cpp.binding import ContextParams, ModelParams, load_library
from moestro.engine.llama_cpp.version import check_version, installed_version, mismatch

MODEL_DEFAULTS: Mapping[str, int | float | bool | None] = MappingProxyType(
    {
        "devices": None,
        "n_gpu_layers": -1,
        "split_mode": 1,
        "load_mode": -1,
        "lazy_mode": 1,
        "main_gpu": 0,
        "kv_overrides": None,
        "vocab_only": False,
        "check_tensors": False,
        "use_extra_bufts": True,
        "no_host": False,
        "no_alloc": False,
        "load_mtp": False,
    }
)
CONTEXT_DEFAULTS: Mapping[str, int | float | bool | None] = MappingProxyType(
    {
        "n_ctx": 512,
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_seq_max": 1,
        "n_rs_seq": 0,
        "n_outputs_max": 0,
        "n_outputs_max_per_seq": 1,
        "n_threads": 4,
        "n_threads_batch": 4,
        "ctx_type": 0,
        "flash_attn_type": -1,
        "rope_scaling_type": -1,
        "pooling_type": -1,
        "attention_type": -1,
        "yarn_ext_factor": -1.0,
        "defrag_thold": -1.0,
        "cb_eval_user_data": None,
        "type_k": 1,
        "type_v": 1,
        "moe_cache_size": 0,
        "embeddings": False,
        "offload_kqv": True,
        "no_perf": True,
        "op_offload": True,
        "swa_full": True,
        "kv_unified": False,
        "n_samplers": 0,
        "ctx_other": None,
    }
)


def deviations(
    struct: ctypes.Structure, expected: Mapping[str, int | float | bool | None]
) -> tuple[str, ...]:
    """Fields of `struct` that differ from the known defaults, as `name is X, not Y`."""
    seen = ((name, getattr(struct, name), value) for name, value in expected.items())
    return tuple(f"{name} is {got}, not {want}" for name, got, want in seen if got != want)


def check_structs(model: ModelParams, context: ContextParams, installed: str) -> None:
    """
    Raises:
        EngineMismatch: a default differs, so the layouts here are not those of this engine.
    """
    wrong = deviations(model, MODEL_DEFAULTS) + deviations(context, CONTEXT_DEFAULTS)
    if wrong:
        raise mismatch(installed, f"has another binary interface ({wrong[0]})")


@functools.cache
def open_library() -> ctypes.CDLL:
    """The checked engine library; the only way to get one that may be called.

    Raises:
        EngineMismatch: absent, another release, or another binary interface.
    """
    installed = installed_version()
    check_version(installed)
    library = load_library()
    check_structs(
        library.llama_model_default_params(), library.llama_context_default_params(), installed
    )
    return library
