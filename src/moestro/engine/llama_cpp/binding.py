"""llama.cpp's C interface, as far as moestro needs it, through ctypes.

The shared object of `xllamacpp` exports the whole C API beside its Python module, so nothing is
compiled here. Struct layouts follow `include/llama.h` of the release in `version`; they are trusted
only after `abi.check_structs` has seen the defaults that this release is known to have.

A failed assertion in llama.cpp ends the process. Load a model only in a child process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import time
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import ClassVar

from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE
from moestro.errors import EngineMismatch

ProgressCallback = CFUNCTYPE(c_bool, c_float, c_void_p)
LogCallback = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
EvalCallback = CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)
AbortCallback = CFUNCTYPE(c_bool, c_void_p)


class ModelParams(Structure):
    """`struct llama_model_params`."""

    _fields_: ClassVar = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", POINTER(c_float)),
        ("progress_callback", ProgressCallback),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


class ContextParams(Structure):
    """`struct llama_context_params`."""

    _fields_: ClassVar = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int),
        ("rope_scaling_type", c_int),
        ("pooling_type", c_int),
        ("attention_type", c_int),
        ("flash_attn_type", c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", EvalCallback),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("moe_cache_size", c_size_t),
        ("abort_callback", AbortCallback),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class TensorOverride(Structure):
    """`struct llama_model_tensor_buft_override`: tensors whose name has `pattern` go to `buft`."""

    _fields_: ClassVar = [("pattern", c_char_p), ("buft", c_void_p)]


class Batch(Structure):
    """`struct llama_batch`. Null pointers take the engine's defaults: positions go on from what the
    memory holds, the sequence is 0."""

    _fields_: ClassVar = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


class SamplerChainParams(Structure):
    """`struct llama_sampler_chain_params`."""

    _fields_: ClassVar = [("no_perf", c_bool)]


FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
"""`enum llama_flash_attn_type`, by the names of `planning.settings`."""

LOAD_MODE_NONE = 0
"""`LLAMA_LOAD_MODE_NONE`: plain reads. The only mode that goes together with `no_alloc`."""


def library_path() -> Path:
    """Where the engine's shared object lies, without importing the engine.

    Raises:
        EngineMismatch: the package or its shared object is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for pattern in ("xllamacpp*.so", "xllamacpp*.dylib", "xllamacpp*.pyd"):
            for candidate in sorted(Path(folder).glob(pattern)):
                return candidate
    raise EngineMismatch(
        f"The inference engine's library was not found: {PACKAGE} is missing or incomplete.",
        hint=f"Reinstall it: pip install --force-reinstall {PACKAGE}=={EXPECTED_VERSION}",
    )


def load_library(path: Path | None = None) -> ctypes.CDLL:
    """The engine's library with typed functions, not yet checked (see `abi.open_library`).

    Raises:
        EngineMismatch: it cannot be loaded, or lacks a function.
    """
    path = path or library_path()
    try:
        # Global symbols are not wanted: a second copy in the process would mix with this one.
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise EngineMismatch(
            f"The inference engine's library cannot be used: {error}.",
            hint=f"Reinstall it: pip install --force-reinstall {PACKAGE}=={EXPECTED_VERSION}",
        ) from error
    return library


def flush_log(library: ctypes.CDLL) -> None:
    """Waits until llama.cpp's log thread has written what it holds; an exit would cut it short."""
    try:
        # C++ functions, so the names are mangled; the same on Linux and macOS.
        main_log, flush = library._Z15common_log_mainv, library._Z16common_log_flushP10common_log
    except AttributeError:
        time.sleep(0.2)
        return
    main_log.restype = c_void_p
    flush.argtypes = [c_void_p]
    flush.restype = None
    flush(main_log())


def _declare(library: ctypes.CDLL) -> None:
    model, context = c_void_p, c_void_p
    for name, result, arguments in (
        ("llama_version", c_char_p, []),
        ("llama_model_default_params", ModelParams, []),
        ("llama_context_default_params", ContextParams, []),
        ("llama_backend_init", None, []),
        ("llama_backend_free", None, []),
        ("llama_log_set", None, [LogCallback, c_void_p]),
        ("llama_model_load_from_file", model, [c_char_p, ModelParams]),
        ("llama_model_free", None, [model]),
        ("llama_model_size", c_uint64, [model]),
        ("llama_model_n_params", c_uint64, [model]),
        ("llama_model_desc", c_int32, [model, c_char_p, c_size_t]),
        ("llama_model_n_layer", c_int32, [model]),
        ("llama_model_n_layer_nextn", c_int32, [model]),
        ("llama_model_n_ctx_train", c_int32, [model]),
        ("llama_model_n_embd", c_int32, [model]),
        ("llama_init_from_model", context, [model, ContextParams]),
        ("llama_free", None, [context]),
        ("llama_n_ctx", c_uint32, [context]),
        ("llama_decode", c_int32, [context, Batch]),
        ("llama_synchronize", None, [context]),
        ("llama_get_logits", POINTER(c_float), [context]),
        ("llama_get_logits_ith", POINTER(c_float), [context, c_int32]),
        ("llama_get_memory", c_void_p, [context]),
        ("llama_memory_clear", None, [c_void_p, c_bool]),
        ("llama_model_get_vocab", c_void_p, [model]),
        ("llama_vocab_n_tokens", c_int32, [c_void_p]),
        ("llama_vocab_bos", c_int32, [c_void_p]),
        ("llama_vocab_eos", c_int32, [c_void_p]),
        ("llama_vocab_get_add_bos", c_bool, [c_void_p]),
        ("llama_vocab_is_eog", c_bool, [c_void_p, c_int32]),
        ("llama_vocab_get_attr", c_int, [c_void_p, c_int32]),
        ("llama_vocab_get_text", c_char_p, [c_void_p, c_int32]),
        (
            "llama_token_to_piece",
            c_int32,
            [c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool],
        ),
        (
            "llama_tokenize",
            c_int32,
            [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool],
        ),
        ("llama_sampler_chain_default_params", SamplerChainParams, []),
        ("llama_sampler_chain_init", c_void_p, [SamplerChainParams]),
        ("llama_sampler_chain_add", None, [c_void_p, c_void_p]),
        ("llama_sampler_init_top_k", c_void_p, [c_int32]),
        ("llama_sampler_free", None, [c_void_p]),
        ("llama_set_sampler", c_bool, [context, c_int32, c_void_p]),
        ("ggml_backend_cpu_buffer_type", c_void_p, []),
        ("ggml_backend_buft_name", c_char_p, [c_void_p]),
        ("ggml_backend_buft_is_host", c_bool, [c_void_p]),
        ("ggml_backend_buft_get_device", c_void_p, [c_void_p]),
        ("ggml_backend_dev_count", c_size_t, []),
        ("ggml_backend_dev_get", c_void_p, [c_size_t]),
        ("ggml_backend_dev_type", c_int, [c_void_p]),
        ("ggml_backend_dev_name", c_char_p, [c_void_p]),
        ("ggml_backend_dev_description", c_char_p, [c_void_p]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


__all__ = [
    "FLASH_ATTENTION",
    "LOAD_MODE_NONE",
    "Batch",
    "ContextParams",
    "EvalCallback",
    "LogCallback",
    "ModelParams",
    "SamplerChainParams",
    "TensorOverride",
    "flush_log",
    "library_path",
    "load_library",
]
