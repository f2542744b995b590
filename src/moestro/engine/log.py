"""What an engine process said: the last lines in memory and, if wanted, a bounded file."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

from moestro.units import MIB

_LONGEST_LINE_BYTES = 16 * 1024

_ONE_AT_A_TIME = threading.Lock()
"""Or else two would move the same file aside, and the second a new one over the old one."""


class BoundedFile:
    """Appended to, and moved aside to `NAME.1` when it would pass `most_bytes`, so that the two
    together stay below twice that. Several may write to one. What cannot be written (a full disk, a
    folder that is gone) is dropped: what is served matters more than what is said of it.
    """

    def __init__(self, path: Path, most_bytes: int = 8 * MIB) -> None:
        self.path = path
        self._most_bytes = most_bytes

    def write(self, data: bytes) -> bool:
        """Whether it is written."""
        try:
            with _ONE_AT_A_TIME:
                self._append(data)
        except OSError:
            return False
        return True

    def _append(self, data: bytes) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            size = 0
        if size and size + len(data) > self._most_bytes:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        with open(self.path, "ab", buffering=0, opener=_for_its_owner) as file:
            file.write(data)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class EngineLog:
    """Takes bytes as they come; keeps `lines` whole lines, oldest dropped first. A file, if given,
    gets all of it (see `BoundedFile`)."""

    def __init__(
        self, *, lines: int = 1000, file: Path | None = None, max_file_bytes: int = 8 * MIB
    ) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._partial = b""
        self._file = BoundedFile(file, max_file_bytes) if file is not None else None

    def feed(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._lines.extend(line.decode(errors="replace") for line in whole)
        if len(self._partial) > _LONGEST_LINE_BYTES:
            self._lines.append(self._partial.decode(errors="replace"))
            self._partial = b""

    def close(self) -> None:
        """Ends the last line. One without its end still counts."""
        if self._partial:
            self._lines.append(self._partial.decode(errors="replace"))
            self._partial = b""

    def tail(self, lines: int) -> tuple[str, ...]:
        return tuple(self._lines)[-lines:] if lines > 0 else ()
