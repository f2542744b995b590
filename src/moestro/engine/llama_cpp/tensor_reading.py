"""Reads tensors of a running graph, wherever they live, without trusting ggml's struct layout."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int64, c_size_t, c_void_p
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def declare(library: ctypes.CDLL) -> None:
    for name, result, arguments in (
        ("ggml_get_name", c_char_p, [c_void_p]),
        ("ggml_nelements", c_int64, [c_void_p]),
        ("ggml_nrows", c_int64, [c_void_p]),
        ("ggml_nbytes", c_size_t, [c_void_p]),
        ("ggml_backend_tensor_get", None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


Kind = TypeVar("Kind", bound="np.generic")


def read_rows(
    library: ctypes.CDLL, tensor: int, kind: type[Kind], row: int | None
) -> NDArray[Kind]:
    """A copy of a tensor of four-byte values as [rows, row length].

    `row` is the row length to see it in, None the tensor's own. Rows may lie apart, as those of a
    view do; the values of a row may not.
    """
    import numpy as np

    elements = library.ggml_nelements(tensor)
    if elements == 0:
        return np.empty((0, row or 0), dtype=kind)
    size = library.ggml_nbytes(tensor)
    data = np.empty(size // 4, dtype=kind)
    library.ggml_backend_tensor_get(tensor, data.ctypes.data, 0, size)
    if row is not None:
        return data.reshape(-1, row)
    rows = library.ggml_nrows(tensor)
    length = elements // rows
    if rows == 1:
        return data.reshape(1, length)
    stride = (len(data) - length) // (rows - 1)
    apart = np.lib.stride_tricks.as_strided(data, (rows, length), (stride * 4, 4))
    return np.ascontiguousarray(apart)
