"""The container of a `.moeref` file: a zip of parts, each a line of JSON with arrays behind it.

Whoever wrote a file may have meant harm: every size is held against a bound before anything of
that size is allocated, and whatever is wrong ends in one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from moestro.errors import ModelError, ModelNotFound, MoestroError
from moestro.units import GIB, KIB, MIB
from moestro.verify.npy import read_array, write_array

MOST_PART_BYTES = 256 * MIB
MOST_LINE_BYTES = 16 * MIB
MOST_ARRAYS = 1 << 14
MOST_DIRECTORY_BYTES = 16 * MIB
"""The zip's own list of parts is read whole; this is one of some 200,000."""

_WRITTEN_AT = (1980, 1, 1, 0, 0, 0)
"""The same results give the same bytes."""
_PLAIN_FLAGS = 0x0806
"""Compression hints and UTF-8 names; no encryption, no patches, no sizes after the data."""
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"

Part = tuple[dict[str, Any], dict[str, NDArray[Any]]]

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,  # how zipfile refuses encryption, and json too deep a nesting
    TypeError,
    ValueError,  # of which UnicodeDecodeError and JSONDecodeError are kinds
    KeyError,
    OverflowError,
)


def corrupt(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path.name} is not a sound reference file: {what}.",
        hint="Fetch it again, or make it again from the reference with this version of moestro.",
        code="reference-corrupt",
    )


class PartWriter:
    """Writes beside `path`, under another name, and takes `path`'s place only when finished."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with self._translated():
            self._file = self._part.open("wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, allowZip64=True)

    def add(self, name: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """
        Raises:
            MoestroError: the disk is full or not writable (code `not-stored`).
            ValueError: more than a reader will take.
        """
        stream = io.BytesIO()
        line = json.dumps(
            {"facts": dict(facts), "arrays": list(arrays)}, ensure_ascii=False, allow_nan=False
        )
        stream.write(line.encode() + b"\n")
        if stream.tell() > MOST_LINE_BYTES or len(arrays) > MOST_ARRAYS:
            raise ValueError(f"the part {name} has too much to say")
        for array in arrays.values():
            write_array(stream, array)
        if stream.tell() > MOST_PART_BYTES:
            raise ValueError(f"the part {name} is larger than {MOST_PART_BYTES} bytes")
        self._write(name, stream.getbuffer())

    def _write(self, name: str, content: memoryview) -> None:
        entry = zipfile.ZipInfo(name, _WRITTEN_AT)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        with self._translated():
            # The fastest level: float data hardly shrinks at any.
            self._zip.writestr(entry, content, compresslevel=1)

    def finish(self) -> None:
        """
        Raises:
            MoestroError: the disk is full or not writable (code `not-stored`).
        """
        with self._translated():
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)

    def abandon(self) -> None:
        """Leaves nothing behind. May be called again, also after `finish`."""
        # Closing writes the list of parts, which fails again where the disk is full.
        with contextlib.suppress(OSError, ValueError):
            self._zip.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise MoestroError(
                f"{self._path} could not be written: "
                f"{'the disk is full' if full else error.strerror or error}.",
                hint="Choose another place, or make room.",
                code="not-stored",
            ) from error


class PartReader:
    """Reads one part at a time."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ModelError: not such a file (code `reference-corrupt`), or none at all.
        """
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
            raise ModelNotFound(
                f"The reference file {path} cannot be read: {reason}.",
                hint="Give the path of a .moeref file, or of the reference model itself.",
            ) from error
        try:
            with self._translated():
                _check_directory(self._file)
                self._zip = zipfile.ZipFile(self._file)
                self._entries = {entry.filename: entry for entry in self._zip.infolist()}
                if len(self._entries) != len(self._zip.infolist()):
                    raise ValueError("two parts have one name")
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str) -> Part:
        """
        Raises:
            ModelError: there is no such part, or it is broken (code `reference-corrupt`).
        """
        with self._translated():
            entry = self._entries.get(name)
            if entry is None:
                raise ValueError(f"it has no part {name}")
            if entry.flag_bits & ~_PLAIN_FLAGS or entry.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(f"its part {name} is packed in an unknown way")
            if entry.file_size > MOST_PART_BYTES:
                raise ValueError(f"its part {name} is too large")
            with self._zip.open(entry) as stream:
                return _read_part(stream, entry.file_size)

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise corrupt(self._path, f"it cannot be read ({error.strerror or error})") from error
        except EOFError as error:
            raise corrupt(self._path, "it ends too early") from error
        except _BROKEN as error:
            raise corrupt(self._path, _words(error)) from error


def _read_part(stream: IO[bytes], size_bytes: int) -> Part:
    line = stream.readline(min(size_bytes, MOST_LINE_BYTES) + 1)
    if not line.endswith(b"\n"):
        raise ValueError("a part does not begin with a line of JSON")
    head = json.loads(line)
    facts, names = head["facts"], head["arrays"]
    if not isinstance(facts, dict) or not isinstance(names, list) or len(names) > MOST_ARRAYS:
        raise ValueError("a part does not say what it holds")
    left = size_bytes - len(line)
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        if not isinstance(name, str) or name in arrays:
            raise ValueError("a part does not say what it holds")
        arrays[name] = read_array(stream, left)
        left -= arrays[name].nbytes
    # Only at the end of a part does zipfile compare its checksum.
    if stream.read(1):
        raise ValueError("a part holds more than it says")
    return facts, arrays


def _check_directory(file: IO[bytes]) -> None:
    """Refuses a zip whose list of parts would fill the memory; zipfile reads it whole.

    Sizes are where APPNOTE.TXT, the zip format's description, puts them (4.3.14 to 4.3.16).
    """
    file_bytes = file.seek(0, os.SEEK_END)
    tail_bytes = min(file_bytes, 64 * KIB + 22)
    file.seek(file_bytes - tail_bytes)
    tail = file.read(tail_bytes)
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise ValueError("it is not a zip, or it ends too early")
    (directory_bytes,) = struct.unpack_from("<I", tail, place + 12)
    locator = place - 20
    if locator >= 0 and tail[locator : locator + 4] == _LOCATOR_64:
        (end_64,) = struct.unpack_from("<Q", tail, locator + 8)
        if end_64 > file_bytes:
            raise ValueError("its list of parts lies outside of it")
        file.seek(end_64)
        record = file.read(56)
        if len(record) < 56 or not record.startswith(_END_64):
            raise ValueError("its list of parts lies outside of it")
        (directory_bytes,) = struct.unpack_from("<Q", record, 40)
    if directory_bytes > MOST_DIRECTORY_BYTES or file_bytes > 1024 * GIB:
        raise ValueError("it has too many parts")
    file.seek(0)


def _words(error: BaseException) -> str:
    """Our own sentences as they are; those of libraries are for programmers."""
    if type(error) is ValueError:
        return str(error)
    if isinstance(error, zipfile.BadZipFile) and "CRC" in str(error):
        return "a checksum does not match"
    return "its content is damaged"
