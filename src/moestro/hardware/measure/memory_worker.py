"""One thread's part of the memory measurement: a process of its own, standard library only.

Python's lock lets one thread of a process work at a time, so that each thread is a process here.
Started as `memory_worker.py SIZE_BYTES`. For every line on stdin, `read SECONDS` or `copy SECONDS`,
it goes through its buffer for about that long and prints the bytes moved and the seconds taken.

*read* searches the buffer for a byte that is not there: the C library's `memchr`, which reads with
the widest registers and writes nothing. *copy* is the C library's `memcpy` from one half of the
buffer to the other; bytes read and bytes written both count.
"""

from __future__ import annotations

import sys
import time

FILLING = b"\x55"
ABSENT = b"\xaa"


def read_pass(buffer: bytearray) -> int:
    if buffer.find(ABSENT) != -1:
        raise AssertionError("the buffer holds a byte that was never written")
    return len(buffer)


def copy_pass(buffer: bytearray) -> int:
    half = len(buffer) // 2
    view = memoryview(buffer)
    view[half : 2 * half] = view[:half]
    return 2 * (2 * half // 2)


PASSES = {"read": read_pass, "copy": copy_pass}


def main() -> int:
    # Written, not only reserved: pages that nobody wrote to are one page of zeros to the kernel.
    buffer = bytearray(FILLING) * int(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        once, until = PASSES[name], float(seconds)
        moved = 0
        began = time.perf_counter()
        while (spent := time.perf_counter() - began) < until:
            moved += once(buffer)
        print(moved, spent, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
