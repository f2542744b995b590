"""Arrays in NumPy's own format (version 1.0), read as what strangers wrote.

`numpy.load` would do, but it evaluates a header as Python and allocates what the header asks for.
Here a header has one spelling only, and its size is held against what is left of the file.
"""

from __future__ import annotations

import io
import math
import re
import struct
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("|u1", "<u2", "<u4", "<u8", "<i4", "<i8", "<f2", "<f4", "<f8", "|b1")
"""The element types that may occur, all little-endian."""
MOST_DIMENSIONS = 4

_MAGIC = b"\x93NUMPY\x01\x00"
_MOST_HEADER_BYTES = 1024
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': False, "
    rb"'shape': \(((?:[0-9]{1,12}(?:, ?|,?(?=\))))*)\), \} *\n"
)
_READ_BYTES = 1 << 20


def write_array(stream: IO[bytes], array: NDArray[Any]) -> None:
    """
    Raises:
        ValueError: an element type that is not one of `KINDS`.
    """
    # Not `ascontiguousarray`, which would make a scalar a vector.
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    if array.dtype.str not in KINDS or array.ndim > MOST_DIMENSIONS:
        raise ValueError(f"{array.ndim}-dimensional arrays of {array.dtype} are not stored")
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)


def read_array(stream: IO[bytes], most_bytes: int) -> NDArray[Any]:
    """The array that begins here; the stream stands behind it afterwards.

    Raises:
        ValueError: not such an array, or one of more than `most_bytes` (nothing is allocated).
        EOFError: the stream ends too early.
    """
    start = _exactly(stream, len(_MAGIC) + 2)
    (header_bytes,) = struct.unpack("<H", start[len(_MAGIC) :])
    if not start.startswith(_MAGIC) or header_bytes > _MOST_HEADER_BYTES:
        raise ValueError("no array begins where one should")
    match = _HEADER.fullmatch(_exactly(stream, header_bytes))
    kind = match[1].decode() if match else ""
    if match is None or kind not in KINDS:
        raise ValueError("an array of a kind that is not stored")
    shape = tuple(int(size) for size in match[2].replace(b" ", b"").split(b",") if size)
    size_bytes = math.prod(shape) * np.dtype(kind).itemsize
    if len(shape) > MOST_DIMENSIONS or size_bytes > most_bytes or max(shape, default=0) >= 1 << 40:
        raise ValueError("an array that is larger than what holds it")
    array = np.empty(shape, kind)
    target = array.reshape(-1).view(np.uint8).data
    place = 0
    while place < size_bytes:
        got = stream.read(min(_READ_BYTES, size_bytes - place))
        if not got:
            raise EOFError("an array ends too early")
        target[place : place + len(got)] = got
        place += len(got)
    return array


def stored_bytes(arrays: list[NDArray[Any]]) -> bytes:
    """The arrays one behind the other."""
    stream = io.BytesIO()
    for array in arrays:
        write_array(stream, array)
    return stream.getvalue()


def _exactly(stream: IO[bytes], size_bytes: int) -> bytes:
    got = b""
    while len(got) < size_bytes:
        more = stream.read(size_bytes - len(got))
        if not more:
            raise EOFError("an array ends too early")
        got += more
    return got
