"""What an engine process said: the last lines in memory and, if wanted, a bounded file."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from moestro.units import MIB

Item = TypeVar("Item")

_LONGEST_LINE_BYTES = 16 * 1024

_MOST_WAITING_BYTES = 4 * MIB
"""Of an engine's words, for a disk that is slow."""

_PAUSE_SECONDS = 0.05
"""Between two writes: what comes meanwhile is one."""

_ONE_AT_A_TIME = threading.Lock()
"""Or else two would move the same file aside, and the second a new one over the old one."""


class BoundedFile:
    """Appended to, and moved aside to `NAME.1` when it would pass `most_bytes`, so that the two
    together stay below twice that. Several may write to one. What cannot be written (a full disk, a
    folder that is gone) is dropped: what is served matters more than what is said of it.
    """

    def __init__(self, path: Path, most_bytes: int = 8 * MIB) -> None:
        self.path = path
        self.most_bytes = most_bytes

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
        if size and size + len(data) > self.most_bytes:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        with open(self.path, "ab", buffering=0, opener=_for_its_owner) as file:
            file.write(data)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class WriterThread(Generic[Item]):
    """Whoever says something never waits for a disk or a reader: a thread calls `write`, a few
    times a second, with all that has come. What is more than `most` behind is refused."""

    def __init__(self, write: Callable[[list[Item]], None], most: int) -> None:
        self._write = write
        self._most = most
        self._items: queue.SimpleQueue[tuple[Item, int] | None] = queue.SimpleQueue()
        self._put = self._written = 0  # each changed by one thread only
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, item: Item, size: int) -> bool:
        """Whether it will be written."""
        if self._put - self._written + size > self._most:
            return False
        self._put += size
        self._items.put((item, size))
        return True

    def close(self, seconds: float = 0.0) -> None:
        """Takes no more, and waits so long until all is written."""
        self._closing.set()
        self._items.put(None)
        if seconds:
            self._thread.join(seconds)

    def _run(self) -> None:
        ended = False
        while not ended:
            items, size = [], 0
            entry = self._items.get()
            while entry is not None:
                items.append(entry[0])
                size += entry[1]
                if self._items.empty():
                    break
                entry = self._items.get()
            ended = entry is None
            self._write(items)
            self._written += size
            self._closing.wait(_PAUSE_SECONDS)


class EngineLog:
    """Takes bytes as they come; keeps `lines` whole lines, oldest dropped first. A file, if given,
    gets all of it (see `BoundedFile`), a moment later."""

    def __init__(
        self, *, lines: int = 1000, file: Path | None = None, max_file_bytes: int = 8 * MIB
    ) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._partial = b""
        self._file = BoundedFile(file, max_file_bytes) if file is not None else None
        self._writer: WriterThread[bytes] | None = None

    def feed(self, data: bytes) -> None:
        if self._file is not None:
            if self._writer is None:
                self._writer = WriterThread(self._keep, _MOST_WAITING_BYTES)
            self._writer.put(data, len(data))
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

    async def written(self, seconds: float) -> None:
        """After the end: until the file has all of it, or so long."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close, seconds)

    def _keep(self, pieces: list[bytes]) -> None:
        assert self._file is not None
        said = b"".join(pieces)
        for start in range(0, len(said), self._file.most_bytes):
            self._file.write(said[start : start + self._file.most_bytes])

    def tail(self, lines: int) -> tuple[str, ...]:
        return tuple(self._lines)[-lines:] if lines > 0 else ()
