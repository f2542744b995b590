"""How fast main memory is read and copied, with one thread and with all that may be used."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from moestro.errors import HardwareError
from moestro.hardware.measure.figure import Figure, figure_of
from moestro.units import GIB, MIB

_WORKER = Path(__file__).with_name("memory_worker.py")
_HOW = {
    "read": "memchr through a buffer of each thread's own, each thread a process",
    "copy": "memcpy within such a buffer; bytes read and written both count",
}
REPETITIONS = 7
SECONDS = 0.25
_MOST_TOTAL_BYTES = 4 * GIB
_MOST_PER_THREAD_BYTES = 512 * MIB
_LEAST_PER_THREAD_BYTES = 32 * MIB


def buffer_bytes(threads: int, available_bytes: int) -> int:
    """Each thread's buffer: far beyond the caches, within a quarter of the free memory.

    Raises:
        HardwareError: too little memory is free to measure anything but caches.
    """
    share_bytes = min(available_bytes // 4, _MOST_TOTAL_BYTES) // threads
    size_bytes = min(share_bytes, _MOST_PER_THREAD_BYTES) // MIB * MIB
    if size_bytes < _LEAST_PER_THREAD_BYTES:
        raise HardwareError(
            "Too little memory is free to measure its speed.", hint="End other programs first."
        )
    return size_bytes


def measure_memory(
    threads: int, available_bytes: int, *, repetitions: int = REPETITIONS, seconds: float = SECONDS
) -> tuple[Figure, ...]:
    """`memory-read` and `memory-copy`, with one thread and with `threads`.

    Raises:
        HardwareError: too little memory is free, or the measuring process fails.
    """
    return tuple(
        figure
        for count in sorted({1, threads})
        for figure in _measure_with(
            count, buffer_bytes(count, available_bytes), repetitions, seconds
        )
    )


def _measure_with(threads: int, size_bytes: int, repetitions: int, seconds: float) -> list[Figure]:
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(size_bytes)) for _ in range(threads)]
        for worker in workers:
            worker.hear()
        figures = []
        for name, how in _HOW.items():
            rates = []
            # The first one warms up: page tables, clock.
            for number in range(repetitions + 1):
                for worker in workers:
                    worker.say(f"{name} {seconds}")
                answers = [worker.hear().split() for worker in workers]
                if number:
                    rates.append(sum(int(moved) / float(spent) for moved, spent in answers))
            figures.append(
                figure_of(
                    f"memory-{name}",
                    rates,
                    threads=threads,
                    size_bytes=threads * size_bytes,
                    how=how,
                )
            )
    return figures


class _Worker:
    """A process that measures; ends with the context."""

    def __init__(self, size_bytes: int) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_WORKER), str(size_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError as error:
            raise HardwareError(
                f"The speed of memory could not be measured: {error.strerror}."
            ) from error

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise _worker_ended() from error

    def hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise _worker_ended()
        return line


def _worker_ended() -> HardwareError:
    return HardwareError(
        "The speed of memory could not be measured: the measuring process ended early.",
        hint="Mostly the memory ran out; end other programs and try again.",
    )
