"""Ends at once what other threads wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopper:
    """Whoever starts a process says how it is ended; whoever has enough calls `stop`, from any
    thread and at any time. What begins after that is ended as soon as it has begun."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._stopped = False

    @property
    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            ends = tuple(self._ends)
        for end in ends:
            end()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """While the block lasts, `stop` calls `end`, which must be quick and harmless when it is
        called again."""
        with self._lock:
            self._ends.append(end)
            stopped = self._stopped
        if stopped:
            end()
        try:
            yield
        finally:
            with self._lock:
                self._ends.remove(end)
