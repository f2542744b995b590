"""A piece of memory that two processes see, for arrays that are too big for a pipe."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64
_FIRST_BYTES = 1 << 20


def make_file() -> int:
    """A descriptor of a nameless file, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("moestro-arena", 0)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class ArenaWriter:
    """Lays arrays one behind the other; the file grows as needed and stays as large."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = _FIRST_BYTES
        os.ftruncate(descriptor, self.size_bytes)
        self._map = mmap.mmap(descriptor, self.size_bytes)
        self._next = 0

    def clear(self) -> None:
        self._next = 0

    def reserve(self, size_bytes: int) -> None:
        """Room for that much behind what is there."""
        needed = self._next + size_bytes + _ALIGNMENT
        if needed > self.size_bytes:
            self._map.close()
            self.size_bytes = max(needed, self.size_bytes + self.size_bytes // 4)
            os.ftruncate(self._descriptor, self.size_bytes)
            self._map = mmap.mmap(self._descriptor, self.size_bytes)

    def add(self, array: NDArray[np.float32] | NDArray[np.int32]) -> int:
        """Copies it; its offset in bytes. `reserve` must have made room for it."""
        offset = self._next
        # The view is dropped here: a mapping that is looked at cannot be closed.
        np.frombuffer(self._map, array.dtype, array.size, offset)[:] = array.reshape(-1)
        self._next = -(-(offset + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
        return offset


class ArenaReader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def follow(self, size_bytes: int) -> None:
        """The file has that size now. Older views stay readable, but no longer change."""
        if self._map is None or len(self._map) != size_bytes:
            self._map = mmap.mmap(self._descriptor, size_bytes)

    def floats(self, offset: int, *shape: int) -> NDArray[np.float32]:
        assert self._map is not None
        return np.frombuffer(self._map, np.float32, math.prod(shape), offset).reshape(shape)

    def ints(self, offset: int, *shape: int) -> NDArray[np.int32]:
        assert self._map is not None
        return np.frombuffer(self._map, np.int32, math.prod(shape), offset).reshape(shape)
