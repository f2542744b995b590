"""Where the engine puts a model's tensors, in its C interface's words."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from moestro.engine.llama_cpp.binding import ModelParams, TensorOverride


def place(
    library: ctypes.CDLL,
    params: ModelParams,
    *,
    gpu_layers: int | None,
    tensor_split: Sequence[float] | None,
    host_tensors: Sequence[str],
) -> list[Any]:
    """Sets the placement in `params`; what it returns must live as long as the model.

    `gpu_layers` and `tensor_split` are as in `planning.settings.Settings`, `host_tensors` patterns
    of tensors that stay in host memory.
    """
    keep: list[Any] = []
    if gpu_layers is not None:
        params.n_gpu_layers = gpu_layers
    if tensor_split:
        shares = (ctypes.c_float * 128)(*tensor_split)
        keep.append(shares)
        params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
    if host_tensors:
        host = library.ggml_backend_cpu_buffer_type()
        rules = [TensorOverride(text.encode(), host) for text in host_tensors]
        overrides = (TensorOverride * (len(rules) + 1))(*rules, TensorOverride())
        keep.append(overrides)
        params.tensor_buft_overrides = ctypes.addressof(overrides)
    return keep
