"""ggml's graphs through ctypes: enough to run single operations the way the engine runs them.

Tensors stay opaque pointers, so no struct layout of ggml is relied on. Types and shapes that an
operation does not take end the process on a failed assertion: use this in a child process only.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from ctypes import c_bool, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any, ClassVar

from moestro.engine.llama_cpp.binding import LogCallback
from moestro.model.ggml_types import BY_NAME, GGML_TYPES

TYPE_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}

Tensor = int
"""A `ggml_tensor *`."""

CPU_DEVICE = 0
GPU_DEVICE = 1
_ROPE_NEOX = 2
_ROPE_SCALES = (1e6, 1.0, 0.0, 1.0, 32.0, 1.0)


class _InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_: ClassVar = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Gives the functions used here their types; returns the library."""
    p, i64 = c_void_p, c_int64
    for name, result, arguments in (
        ("ggml_init", p, [_InitParams]),
        ("ggml_free", None, [p]),
        ("ggml_log_set", None, [LogCallback, p]),
        ("ggml_tensor_overhead", c_size_t, []),
        ("ggml_graph_overhead_custom", c_size_t, [c_size_t, c_bool]),
        ("ggml_new_graph_custom", p, [p, c_size_t, c_bool]),
        ("ggml_build_forward_expand", None, [p, p]),
        ("ggml_nbytes", c_size_t, [p]),
        ("ggml_new_tensor_4d", p, [p, c_int, i64, i64, i64, i64]),
        ("ggml_mul_mat", p, [p, p, p]),
        ("ggml_mul_mat_id", p, [p, p, p, p]),
        ("ggml_add", p, [p, p, p]),
        ("ggml_mul", p, [p, p, p]),
        ("ggml_rms_norm", p, [p, p, c_float]),
        ("ggml_l2_norm", p, [p, p, c_float]),
        ("ggml_silu", p, [p, p]),
        ("ggml_sigmoid", p, [p, p]),
        ("ggml_swiglu_split", p, [p, p, p]),
        ("ggml_soft_max", p, [p, p]),
        ("ggml_sum_rows", p, [p, p]),
        ("ggml_cont", p, [p, p]),
        ("ggml_concat", p, [p, p, p, c_int]),
        ("ggml_transpose", p, [p, p]),
        ("ggml_permute", p, [p, p, c_int, c_int, c_int, c_int]),
        ("ggml_reshape_3d", p, [p, p, i64, i64, i64]),
        ("ggml_get_rows", p, [p, p, p]),
        ("ggml_set_rows", p, [p, p, p, p]),
        ("ggml_argsort_top_k", p, [p, p, c_int]),
        (
            "ggml_rope_ext",
            p,
            [p, p, p, p, c_int, c_int, c_int, *([c_float] * 6)],
        ),
        ("ggml_soft_max_ext", p, [p, p, p, c_float, c_float]),
        ("ggml_flash_attn_ext", p, [p, p, p, p, p, c_float, c_float, c_float]),
        ("ggml_ssm_conv", p, [p, p, p]),
        ("ggml_gated_delta_net", p, [p, p, p, p, p, p, p, i64]),
        ("ggml_ssm_scan", p, [p, p, p, p, p, p, p, p, i64]),
        ("ggml_quantize_chunk", c_size_t, [c_int, p, p, i64, i64, i64, p]),
        ("ggml_quantize_requires_imatrix", c_bool, [c_int]),
        ("ggml_backend_tensor_set", None, [p, p, c_size_t, c_size_t]),
        ("ggml_backend_buffer_free", None, [p]),
        ("ggml_backend_buffer_set_usage", None, [p, c_int]),
        ("ggml_backend_buffer_get_size", c_size_t, [p]),
        ("ggml_backend_alloc_ctx_tensors_from_buft", p, [p, p]),
        ("ggml_backend_dev_count", c_size_t, []),
        ("ggml_backend_dev_get", p, [c_size_t]),
        ("ggml_backend_dev_type", c_int, [p]),
        ("ggml_backend_dev_name", c_char_p, [p]),
        ("ggml_backend_dev_description", c_char_p, [p]),
        ("ggml_backend_dev_init", p, [p, c_char_p]),
        ("ggml_backend_dev_buffer_type", p, [p]),
        ("ggml_backend_dev_supports_op", c_bool, [p, p]),
        ("ggml_backend_dev_backend_reg", p, [p]),
        ("ggml_backend_reg_get_proc_address", p, [p, c_char_p]),
        ("ggml_backend_buft_name", c_char_p, [p]),
        ("ggml_backend_free", None, [p]),
        ("ggml_backend_graph_compute", c_int, [p, p]),
        ("ggml_backend_synchronize", None, [p]),
        ("ggml_gallocr_new", p, [p]),
        ("ggml_gallocr_alloc_graph", c_bool, [p, p]),
        ("ggml_gallocr_free", None, [p]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


class Device:
    """One backend device with its buffer types, ready to compute."""

    def __init__(self, library: ctypes.CDLL, index: int, threads: int) -> None:
        self.library = library
        self.handle = library.ggml_backend_dev_get(index)
        self.name = library.ggml_backend_dev_name(self.handle).decode()
        self.is_cpu = library.ggml_backend_dev_type(self.handle) == CPU_DEVICE
        self.backend = library.ggml_backend_dev_init(self.handle, None)
        self.plain = library.ggml_backend_dev_buffer_type(self.handle)
        self.extra = self._extra_buffer_types()
        self._set_threads(threads)

    def _procedure(self, name: str, result: Any, *arguments: Any) -> Any:
        """A function that only this kind of device has; None if it has not."""
        registry = self.library.ggml_backend_dev_backend_reg(self.handle)
        address = self.library.ggml_backend_reg_get_proc_address(registry, name.encode())
        return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None

    def _set_threads(self, threads: int) -> None:
        call = self._procedure("ggml_backend_set_n_threads", None, c_void_p, c_int)
        if call is not None:
            call(self.backend, threads)

    def _extra_buffer_types(self) -> list[int]:
        """Buffer types that lay weights out anew (CPU_REPACK, AMX …), in the engine's order."""
        call = self._procedure(
            "ggml_backend_dev_get_extra_bufts", ctypes.POINTER(c_void_p), c_void_p
        )
        found: list[int] = []
        if call is not None:
            table = call(self.handle)
            while table and table[len(found)]:
                found.append(table[len(found)])
        return found

    def close(self) -> None:
        self.library.ggml_backend_free(self.backend)


class Pool:
    """Tensors that live in one buffer of a device: weights, caches, inputs."""

    def __init__(self, device: Device, most_tensors: int = 4096) -> None:
        self.device = device
        self._library = device.library
        size = self._library.ggml_tensor_overhead() * (most_tensors + 1)
        self.context = self._library.ggml_init(_InitParams(size, None, True))
        self._buffer: int | None = None
        self.tensors: list[Tensor] = []

    def tensor(self, type_name: str, *shape: int) -> Tensor:
        dims = (*shape, 1, 1, 1)[:4]
        made: Tensor = self._library.ggml_new_tensor_4d(
            self.context, TYPE_NUMBERS[type_name], *dims
        )
        self.tensors.append(made)
        return made

    def allocate(self, buffer_type: int | None = None, *, weights: bool = False) -> bool:
        self._buffer = self._library.ggml_backend_alloc_ctx_tensors_from_buft(
            self.context, buffer_type or self.device.plain
        )
        if self._buffer and weights:
            self._library.ggml_backend_buffer_set_usage(self._buffer, 1)
        return bool(self._buffer)

    def fill(self, tensor: Tensor, data: bytes | ctypes.Array[ctypes.c_char]) -> None:
        """Writes `data`, over and over until the tensor is full, in one call: repacking needs it
        whole."""
        size = self._library.ggml_nbytes(tensor)
        whole = bytes(data)
        whole = (whole * -(-size // len(whole)))[:size]
        pointer = ctypes.cast(ctypes.c_char_p(whole), c_void_p)
        self._library.ggml_backend_tensor_set(tensor, pointer, 0, size)

    def close(self) -> None:
        if self._buffer:
            self._library.ggml_backend_buffer_free(self._buffer)
        self._library.ggml_free(self.context)


class Graph:
    """Operations to be run as one graph; results live in a buffer of its own.

    Every operation method takes and returns tensors and is named as in ggml.
    """

    def __init__(self, device: Device, most_nodes: int = 4096) -> None:
        self.device = device
        library = self._library = device.library
        size = library.ggml_tensor_overhead() * (2 * most_nodes)
        size += library.ggml_graph_overhead_custom(most_nodes, False)
        self._context = library.ggml_init(_InitParams(size, None, True))
        self._graph = library.ggml_new_graph_custom(self._context, most_nodes, False)
        self._allocator = library.ggml_gallocr_new(device.plain)

    def add_result(self, tensor: Tensor) -> None:
        self._library.ggml_build_forward_expand(self._graph, tensor)

    def op(self, name: str, *arguments: object) -> Tensor:
        made: Tensor = getattr(self._library, f"ggml_{name}")(self._context, *arguments)
        return made

    def rope(self, tensor: Tensor, positions: Tensor, dims: int) -> Tensor:
        return self.op("rope_ext", tensor, positions, None, dims, _ROPE_NEOX, 4096, *_ROPE_SCALES)

    def supports(self, tensor: Tensor) -> bool:
        return bool(self._library.ggml_backend_dev_supports_op(self.device.handle, tensor))

    def allocate(self) -> None:
        if not self._library.ggml_gallocr_alloc_graph(self._allocator, self._graph):
            raise MemoryError("ggml could not allocate a graph")

    def run(self) -> float:
        """Computes the graph once; seconds."""
        begun = time.perf_counter()
        self._library.ggml_backend_graph_compute(self.device.backend, self._graph)
        self._library.ggml_backend_synchronize(self.device.backend)
        return time.perf_counter() - begun

    def close(self) -> None:
        self._library.ggml_gallocr_free(self._allocator)
        self._library.ggml_free(self._context)


def normal_values(count: int, seed: int = 1) -> ctypes.Array[c_float]:
    """About normal random values (a sum of uniform ones), without numpy."""
    import random

    source = random.Random(seed)
    values = [source.gauss(0.0, 0.02) for _ in range(count)]
    return (c_float * count)(*values)


def quantized(
    library: ctypes.CDLL, type_name: str, values: ctypes.Array[c_float], row: int
) -> ctypes.Array[ctypes.c_char]:
    """`values` in rows of `row`, in the tensor type's own format."""
    kind = BY_NAME[type_name]
    rows = len(values) // row
    size = kind.row_bytes(row) * rows
    data = ctypes.create_string_buffer(size)
    importance = None
    if library.ggml_quantize_requires_imatrix(TYPE_NUMBERS[type_name]):
        importance = (c_float * row)(*([1.0] * row))
    library.ggml_quantize_chunk(TYPE_NUMBERS[type_name], values, data, 0, rows, row, importance)
    return data


def int32s(values: Sequence[int]) -> bytes:
    return bytes((c_int32 * len(values))(*values))


def floats(values: Sequence[float]) -> bytes:
    return bytes((c_float * len(values))(*values))
