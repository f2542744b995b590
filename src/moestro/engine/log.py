"""What an engine process said: the last lines in memory and, if wanted, a bounded file."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import BinaryIO

from moestro.units import MIB

_LONGEST_LINE_BYTES = 16 * 1024


class EngineLog:
    """Takes bytes as they come; keeps `lines` whole lines, oldest dropped first.

    A file, if given, is appended to and moved aside to `NAME.1` when it passes `max_file_bytes`, so
    the two together stay below twice that.
    """

    def __init__(
        self, *, lines: int = 1000, file: Path | None = None, max_file_bytes: int = 8 * MIB
    ) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._partial = b""
        self._path = file
        self._max_file_bytes = max_file_bytes
        self._file: BinaryIO | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("ab", buffering=0)

    def feed(self, data: bytes) -> None:
        self._write(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._lines.extend(line.decode(errors="replace") for line in whole)
        if len(self._partial) > _LONGEST_LINE_BYTES:
            self._lines.append(self._partial.decode(errors="replace"))
            self._partial = b""

    def close(self) -> None:
        """Ends the last line and the file. A line without its end still counts."""
        if self._partial:
            self._lines.append(self._partial.decode(errors="replace"))
            self._partial = b""
        if self._file is not None:
            self._file.close()
            self._file = None

    def tail(self, lines: int) -> tuple[str, ...]:
        return tuple(self._lines)[-lines:] if lines > 0 else ()

    def _write(self, data: bytes) -> None:
        if self._file is None or self._path is None:
            return
        if self._file.tell() + len(data) > self._max_file_bytes and self._file.tell() > 0:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(data)
