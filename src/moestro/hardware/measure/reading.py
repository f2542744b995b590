"""How fast a file that is already there reads now: a moment's look that leaves nothing behind."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from moestro.units import MIB

_BLOCK_BYTES = 8 * MIB
_MOST_BYTES = 256 * MIB
_SECONDS = 0.5
_LEAST_BYTES = 64 * MIB
_ALIGNMENT_BYTES = 4096


def reading_rate(path: Path) -> float | None:
    """Bytes per second of the first read past the file cache, from the file's middle on.

    None where such reads are not to be had (tmpfs, some network file systems), the file is small,
    or holds less than its length (a sparse file reads as fast as memory). The cache is left alone:
    a model that lies in it stays there. Takes half a second, or one block where that takes longer.
    """
    direct = getattr(os, "O_DIRECT", 0)
    if not direct:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | direct)
    except OSError:
        return None
    try:
        return _rate(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


def _rate(handle: int) -> float | None:
    status = os.fstat(handle)
    size_bytes = status.st_size
    if size_bytes < _LEAST_BYTES or status.st_blocks * 512 < 0.9 * size_bytes:
        return None
    offset = size_bytes // 2 // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES
    done = 0
    with mmap.mmap(-1, _BLOCK_BYTES) as block:
        began = time.perf_counter()
        while done < _MOST_BYTES and time.perf_counter() - began < _SECONDS:
            read = os.preadv(handle, [block], offset + done)
            done += read
            if read < _BLOCK_BYTES:  # the end
                break
        return done / (time.perf_counter() - began)
