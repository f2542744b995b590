"""Child process of `weights_probe`: reads model files from their first to their last byte.

Usage: python -m moestro.engine.llama_cpp.weights_probe_child, with one line of JSON on stdin. The
arrays go into a file that the request names, the rest is reported on stdout. Files are mapped, and
what was read is given back at once, so memory stays bounded. A file that gets shorter meanwhile, or
a disk that fails, ends this process by a signal.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestro.engine.child import FAILED_START, ReportStream, claim_report_stream
from moestro.engine.llama_cpp import row_samples, type_traits
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.row_samples import NARROW, WIDE, RowSample, row_sample
from moestro.engine.orphans import end_with_owner
from moestro.errors import EngineMismatch
from moestro.model.ggml_types import BY_NAME

PIECE_BYTES = 16 << 20
BATCH_VALUES = 1 << 20
PROGRESS_SECONDS = 0.2
MAX_BAD_ROWS, MAX_NARROWED_ROWS = 10_000, 4_000_000
"""Of all tensors together: how many bad rows are counted, how many are looked at one by one."""

_PLAIN = {"F32": "<f4", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
_STDIN = 0

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Place:
    """A tensor in its file; `begin` counts from the start of the file."""

    name: str
    type: str
    begin: int
    sample: RowSample
    row_bytes: int = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    sums: NDArray[np.float64] = field(init=False)
    bad_rows: int = 0
    first_bad_row: int | None = None

    def __post_init__(self) -> None:
        self.row_bytes = BY_NAME[self.type].row_bytes(self.sample.length)
        self.squares = np.zeros(self.sample.units)
        self.sums = np.zeros((self.sample.units, self.sample.width))

    @property
    def size_bytes(self) -> int:
        return self.row_bytes * self.sample.rows

    @property
    def end(self) -> int:
        return self.begin + self.size_bytes


class Truncated(Exception):
    def __init__(self, **facts: Any) -> None:
        super().__init__()
        self.facts = facts


class MappedFile:
    """One file, hashed from its start as far as others have read it, in a thread of its own."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.size_bytes = os.fstat(descriptor).st_size
            self._map = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        self._map.madvise(mmap.MADV_SEQUENTIAL)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self.address = int(self.bytes.ctypes.data)
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._running: Future[None] | None = None
        self._submitted = self._hashed = self._given_back = 0

    def passed(self, offset: int, *, least_bytes: int = PIECE_BYTES) -> None:
        """Everything before `offset` is no longer needed."""
        while offset - self._submitted >= least_bytes and offset > self._submitted:
            self._wait()
            end = min(offset, self._submitted + PIECE_BYTES)
            piece = memoryview(self._map)[self._submitted : end]
            self._running = self._thread.submit(self._hash.update, piece)
            self._submitted = end

    def digest(self) -> str:
        """Of the whole file."""
        self.passed(self.size_bytes, least_bytes=1)
        self._wait()
        self._thread.shutdown()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
            self._hashed = self._submitted
        whole = self._hashed - self._hashed % mmap.PAGESIZE
        if whole > self._given_back:
            self._map.madvise(mmap.MADV_DONTNEED, self._given_back, whole - self._given_back)
            self._given_back = whole


class Prober:
    """Validates and samples tensors, one after the other."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._left_bad = MAX_BAD_ROWS
        self._left_narrowed = MAX_NARROWED_ROWS
        self._signs = np.empty((WIDE, 0), dtype=np.float32)
        rows = range(row_samples.ROWS_OF_AN_EXPERT)
        self._row_signs = np.stack([_signs(row_samples.row_sign_bytes(row), WIDE) for row in rows])

    def pieces(self, file: MappedFile, place: Place) -> Iterator[int]:
        """Works through the tensor; yields the offset that it has come to after each piece."""
        kind = BY_NAME[place.type]
        unit = place.row_bytes if place.row_bytes <= PIECE_BYTES else kind.block_bytes
        step = PIECE_BYTES // unit * unit
        samples = self._sampled_rows(place)
        waiting = next(samples, None)
        for begin in range(place.begin, place.end, step):
            end = min(begin + step, place.end)
            if not self._is_good(file, place.type, begin, end - begin):
                self._count_bad(file, place, begin, end)
            batch = []
            while waiting is not None and place.begin + waiting[2] * place.row_bytes < end:
                batch.append(waiting)
                waiting = next(samples, None)
            self._sample(file, place, batch)
            yield end

    @staticmethod
    def _sampled_rows(place: Place) -> Iterator[tuple[int, int, int]]:
        """(unit, number in it, row of the tensor), in ascending order of rows."""
        sample = place.sample
        for unit in range(sample.units):
            for number in range(sample.rows_each):
                yield unit, number, sample.row(unit, number)

    def _is_good(self, file: MappedFile, type_name: str, begin: int, size: int) -> bool:
        if type_name in row_samples.NOT_SAMPLED:
            return True
        number = type_traits.TYPE_NUMBERS[type_name]
        return bool(self._library.ggml_validate_row_data(number, file.address + begin, size))

    def _count_bad(self, file: MappedFile, place: Place, begin: int, end: int) -> None:
        found_before = place.bad_rows
        rows = range((begin - place.begin) // place.row_bytes, (end - place.begin - 1)
                     // place.row_bytes + 1)  # fmt: skip
        for row in rows:
            if not self._left_bad or not self._left_narrowed:
                break
            self._left_narrowed -= 1
            at = place.begin + row * place.row_bytes
            size = min(place.row_bytes, place.end - at)
            if len(rows) == 1 or not self._is_good(file, place.type, at, size):
                self._left_bad -= 1
                self._bad(place, row)
        if place.bad_rows == found_before:  # nobody looked
            self._bad(place, rows[0])

    @staticmethod
    def _bad(place: Place, row: int) -> None:
        place.bad_rows += 1
        if place.first_bad_row is None:
            place.first_bad_row = row

    def _sample(self, file: MappedFile, place: Place, rows: Sequence[tuple[int, int, int]]) -> None:
        sample = place.sample
        most = max(1, BATCH_VALUES // sample.values)
        for at in range(0, len(rows), most):
            batch = rows[at : at + most]
            units = [unit for unit, _, _ in batch]
            values = self._values(file, place, [row for _, _, row in batch])
            with np.errstate(all="ignore"):  # values that are not finite are seen afterwards
                projected = values @ self._matrix(sample.width, sample.values).T
                if sample.rows_each > 1:
                    projected *= self._row_signs[[n for _, n, _ in batch], : sample.width]
                np.add.at(place.sums, units, projected.astype(np.float64))
                squares = np.einsum("ij,ij->i", values, values, dtype=np.float64)
                np.add.at(place.squares, units, squares)

    def _values(self, file: MappedFile, place: Place, rows: Sequence[int]) -> Floats:
        """[rows, values that count]"""
        length = place.sample.values
        kind = BY_NAME[place.type]
        size = kind.row_bytes(length)
        begins = [place.begin + row * place.row_bytes for row in rows]
        if place.type in _PLAIN:
            with np.errstate(all="ignore"):
                raw = np.stack([file.bytes[begin : begin + size] for begin in begins])
                return raw.view(_PLAIN[place.type]).astype(np.float32)
        to_float = type_traits.to_float_of(self._library, place.type)
        assert to_float is not None, place.type
        values = np.empty((len(rows), length), dtype=np.float32)
        target = int(values.ctypes.data)
        for number, begin in enumerate(begins):
            to_float(file.address + begin, target + 4 * number * length, length)
        return values

    def _matrix(self, width: int, length: int) -> Floats:
        """The first `length` columns of P; it grows with the longest row so far."""
        if self._signs.shape[1] < length:
            rows = [_signs(row_samples.sign_bytes(row, length), length) for row in range(WIDE)]
            self._signs = np.stack(rows)
        return self._signs[:width, :length]


def _signs(raw: bytes, count: int) -> Floats:
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count)
    return bits.astype(np.float32) * 2 - 1


class Progress:
    def __init__(self, report: ReportStream, all_bytes: int) -> None:
        self._report = report
        self._all_bytes = all_bytes
        self._told_at = 0.0
        self.before_bytes = 0

    def at(self, offset: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            done = self.before_bytes + offset
            self._report.send("progress", done_bytes=done, all_bytes=self._all_bytes)


def probe_file(prober: Prober, path: str, places: Sequence[Place], progress: Progress) -> str:
    """The file's hash; what its tensors are like is left in `places`."""
    file = MappedFile(path)
    for place in sorted(places, key=lambda place: place.begin):
        if place.end > file.size_bytes:
            raise Truncated(path=path, tensor=place.name, end=place.end, size_bytes=file.size_bytes)
    for place in sorted(places, key=lambda place: place.begin):
        for offset in prober.pieces(file, place):
            file.passed(offset)
            progress.at(offset)
    progress.before_bytes += file.size_bytes
    return file.digest()


def results(
    places: Sequence[Place],
) -> tuple[Floats, NDArray[np.float16], NDArray[np.float16]]:
    """Norms of all units one after the other; sketches likewise, the narrow and the wide ones."""
    norms: list[Floats] = [np.empty(0, dtype=np.float32)]
    sketches = {width: [np.empty((0, width), dtype=np.float16)] for width in (NARROW, WIDE)}
    for place in places:
        width = place.sample.width
        with np.errstate(all="ignore"):
            norm = np.sqrt(place.squares).astype(np.float32)
            scale = np.sqrt(place.squares * width)[:, None]
            sketch = np.where(scale > 0, place.sums / np.where(scale > 0, scale, 1), 0)
        bad = ~(np.isfinite(norm) & np.isfinite(sketch).all(axis=1))
        norm[bad], sketch[bad] = np.nan, 0
        norms.append(norm)
        sketches[width].append(sketch.astype(np.float16))
    narrow, wide = np.concatenate(sketches[NARROW]), np.concatenate(sketches[WIDE])
    return np.concatenate(norms), narrow, wide


def _place(name: str, type_name: str, dims: Sequence[int], begin: int) -> Place:
    sample = row_sample(name, type_name, dims)
    return Place(name, type_name, begin, sample)


def probe(library: ctypes.CDLL, request: dict[str, Any], report: ReportStream) -> None:
    files = [
        (file["path"], [_place(*tensor) for tensor in file["tensors"]]) for file in request["files"]
    ]
    progress = Progress(report, sum(os.stat(path).st_size for path, _ in files))
    prober = Prober(library)
    digests = [probe_file(prober, path, places, progress) for path, places in files]
    every = [place for _, places in files for place in places]
    norms, narrow, wide = results(every)
    np.savez(request["results"], norms=norms, narrow=narrow, wide=wide)
    bad = [[place.name, place.bad_rows, place.first_bad_row] for place in every if place.bad_rows]
    report.send("done", digests=digests, bad=bad)


def main() -> int:
    report = claim_report_stream()
    request = json.loads(sys.stdin.buffer.readline())
    end_with_owner(_STDIN)
    try:
        library = type_traits.declare(open_library())
        type_traits.check_traits(library)
        probe(library, request, report)
    except EngineMismatch as error:
        report.send("failed", **error.to_json())
        return FAILED_START
    except Truncated as error:
        report.send("truncated", **error.facts)
        return FAILED_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
