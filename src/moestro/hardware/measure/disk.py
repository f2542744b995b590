"""How fast a disk reads past the file cache: in large blocks from the start, and at random."""

from __future__ import annotations

import errno
import mmap
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from moestro.errors import HardwareError
from moestro.hardware.disk import disk_of
from moestro.hardware.measure.figure import Figure, figure_of
from moestro.units import GIB, KIB, MIB

FILE_BYTES = 1 * GIB
SEQUENTIAL_BLOCK_BYTES = 8 * MIB
RANDOM_BLOCK_BYTES = 128 * KIB
"""What the kernel reads ahead by default when a mapped file is touched."""

RANDOM_THREADS = 8
REPETITIONS = 3
SECONDS = 2.0
_ALIGNMENT_BYTES = 4 * KIB
_LARGEST_SHARE = 0.1
_LEAST_FILE_BYTES = 64 * MIB


def measure_disk(
    folder: Path,
    *,
    file: Path | None = None,
    size_bytes: int = FILE_BYTES,
    repetitions: int = REPETITIONS,
    seconds: float = SECONDS,
) -> tuple[Figure, ...]:
    """`disk-sequential` and `disk-random` of the disk under `folder`.

    Reads `file` where one is given, else a temporary one of `size_bytes` (at most a tenth of the
    free space) that is removed afterwards. Each repetition ends after `seconds`.

    Raises:
        HardwareError: no room, no right to write there, or the file is too small.
    """
    try:
        if file is not None:
            return _measure(file, repetitions, seconds)
        with _temporary(folder, size_bytes) as made:
            return _measure(made, repetitions, seconds)
    except OSError as error:
        raise _failed(folder, error) from error


def _measure(path: Path, repetitions: int, seconds: float) -> tuple[Figure, ...]:
    size_bytes = path.stat().st_size // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES
    if size_bytes < _LEAST_FILE_BYTES:
        raise HardwareError(f"{path} is too small to measure a disk with.")
    figures = []
    with _opened(path) as (handle, how):
        for what, threads, block_bytes, read in (
            ("disk-sequential", 1, SEQUENTIAL_BLOCK_BYTES, _sequential),
            ("disk-random", RANDOM_THREADS, RANDOM_BLOCK_BYTES, _random),
        ):
            rates = []
            for _ in range(repetitions):
                _forget(handle)
                rates.append(read(handle, size_bytes, seconds))
            figures.append(
                figure_of(
                    what,
                    rates,
                    threads=threads,
                    size_bytes=size_bytes,
                    block_bytes=block_bytes,
                    how=how,
                )
            )
    return tuple(figures)


def _sequential(handle: int, size_bytes: int, seconds: float) -> float:
    # Anonymous maps begin at a page, as reading past the cache demands.
    with mmap.mmap(-1, SEQUENTIAL_BLOCK_BYTES) as block:
        done = offset = 0
        began = time.perf_counter()
        while offset < size_bytes and time.perf_counter() - began < seconds:
            done += (read := _read_into(handle, block, offset))
            offset += read
        return done / (time.perf_counter() - began)


def _random(handle: int, size_bytes: int, seconds: float) -> float:
    blocks = size_bytes // RANDOM_BLOCK_BYTES
    places = list(range(blocks))
    random.Random(size_bytes).shuffle(places)
    began = time.perf_counter()

    def part(number: int) -> int:
        done = 0
        with mmap.mmap(-1, RANDOM_BLOCK_BYTES) as block:
            # No place twice: the second visit could come from a cache of the disk's own.
            for place in places[number::RANDOM_THREADS]:
                if time.perf_counter() - began >= seconds:
                    break
                done += _read_into(handle, block, place * RANDOM_BLOCK_BYTES)
        return done

    with ThreadPoolExecutor(RANDOM_THREADS) as pool:
        done = sum(pool.map(part, range(RANDOM_THREADS)))
    return done / (time.perf_counter() - began)


def _read_into(handle: int, block: mmap.mmap, offset: int) -> int:
    read = os.preadv(handle, [block], offset)
    if read == 0:
        raise OSError(errno.EIO, "the file ended early")
    return read


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, str]]:
    """The file, past the cache where the system allows it, and a word on how."""
    handle, how = _open_direct(path)
    try:
        yield handle, how
    finally:
        os.close(handle)


def _open_direct(path: Path) -> tuple[int, str]:
    direct = getattr(os, "O_DIRECT", 0)
    if direct:
        handle = -1
        try:
            handle = os.open(path, os.O_RDONLY | direct)
            with mmap.mmap(-1, _ALIGNMENT_BYTES) as block:
                os.preadv(handle, [block], 0)
        except OSError:  # tmpfs and some network file systems know no such reads
            if handle >= 0:
                os.close(handle)
        else:
            return handle, "past the file cache (O_DIRECT)"
    handle = os.open(path, os.O_RDONLY)
    no_cache = _no_cache()
    if no_cache is not None:
        no_cache(handle)
        return handle, "past the file cache (F_NOCACHE)"
    return handle, "after dropping the file from the cache"


def _no_cache() -> Callable[[int], object] | None:
    """macOS's way of reading past the cache."""
    import fcntl

    command = getattr(fcntl, "F_NOCACHE", None)
    return None if command is None else lambda handle: fcntl.fcntl(handle, command, 1)


def _forget(handle: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _temporary(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file of random bytes (nothing that a file system could compress), on the disk for sure."""
    disk = disk_of(folder)
    free_bytes = disk.free_bytes if disk and disk.free_bytes is not None else 0
    size_bytes = min(size_bytes, int(free_bytes * _LARGEST_SHARE)) // MIB * MIB
    if size_bytes < _LEAST_FILE_BYTES:
        raise HardwareError(
            f"There is too little room in {folder} to measure its disk.", hint="Make room there."
        )
    handle, name = tempfile.mkstemp(prefix=".moestro-measure-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            for _ in range(size_bytes // MIB):
                file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())
            _forget(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _failed(folder: Path, error: OSError) -> HardwareError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HardwareError(f"The disk under {folder} is full; it was not measured.")
    reason = error.strerror or type(error).__name__
    return HardwareError(f"The disk under {folder} could not be measured: {reason}.")
