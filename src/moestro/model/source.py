"""Where header bytes come from: anything that can be read at an offset."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from moestro.closing import Closing
from moestro.errors import ModelNotFound, NotAModel


class ByteSource(Protocol):
    """A file somewhere. `transferred_bytes` counts what was read from it so far."""

    @property
    def name(self) -> str:
        """Short, for sentences: a file name."""

    @property
    def location(self) -> str:
        """The whole path or address."""

    @property
    def size_bytes(self) -> int | None:
        """Length of the whole file; None if the other side does not say (or not yet)."""

    @property
    def transferred_bytes(self) -> int: ...

    @property
    def first_read_bytes(self) -> int:
        """How much to ask for at once in the beginning; later reads may be larger."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""

    def close(self) -> None: ...


class FileSource(Closing):
    """A local file, read with `pread`."""

    first_read_bytes = 1 << 20

    def __init__(self, path: Path) -> None:
        self._path = path
        self._transferred_bytes = 0
        self._descriptor = -1
        try:
            state = os.stat(path)
            if not stat.S_ISREG(state.st_mode):
                # Opening a pipe would wait for its writer for ever.
                raise NotAModel(f"{path} is not a regular file.", hint="Give a GGUF file.")
            self._size_bytes = state.st_size
            self._descriptor = os.open(path, os.O_RDONLY)
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def location(self) -> str:
        return str(self._path)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def transferred_bytes(self) -> int:
        return self._transferred_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise unreadable(self._path, error) from error
        self._transferred_bytes += len(data)
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def unreadable(path: Path, error: OSError | ValueError) -> ModelNotFound:
    """The sentence for a path that cannot be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ModelNotFound(
            f"There is no file {path}.",
            hint="Give a GGUF file, a Hugging Face folder, hf:owner/repo[:quant], an http(s) "
            "address, or demo.",
        )
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return ModelNotFound(f"{path} cannot be read: {reason}.", hint="Check its owner and mode.")
