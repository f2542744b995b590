"""Memory that is asked for and never touched.

In a dry run the engine still takes some buffers for real, and clears them: recurrent states (60 MiB
for each sequence of a 35 B hybrid, times the snapshots that speculation keeps) and output rows.
Only their sizes are wanted. So buffers get an address that nothing may use.
"""

from __future__ import annotations

import ctypes
from typing import Any

from moestro.engine.llama_cpp.backend_structs import (
    AllocBuffer,
    BufferTable,
    BufferType,
    Clear,
    GetPointer,
)

ADDRESS = 1 << 20
"""Aligned for any device. No system maps memory there, so a use ends the process at once."""


class Imaginary:
    """Makes buffers without memory. Keep it alive as long as the engine runs."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._init = library.ggml_backend_buffer_init
        self._init.restype = ctypes.c_void_p
        self._init.argtypes = [
            ctypes.c_void_p,
            BufferTable,
            ctypes.c_void_p,
            ctypes.c_size_t,
        ]
        self._table = BufferTable()
        self._table.get_base = GetPointer(lambda _buffer: ADDRESS)
        self._table.clear = Clear(lambda _buffer, _value: None)
        self.alloc_buffer = AllocBuffer(self._alloc)

    def replace_host_memory(self, library: ctypes.CDLL) -> None:
        """From now on host buffers are imaginary too."""
        host = BufferType.from_address(library.ggml_backend_cpu_buffer_type())
        host.table.alloc_buffer = self.alloc_buffer

    def _alloc(self, buffer_type: int, size_bytes: int) -> Any:
        return self._init(buffer_type, self._table, None, size_bytes)
