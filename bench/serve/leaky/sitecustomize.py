"""Plants a leak into an engine's process: on PYTHONPATH, Python imports this at its start.

MOESTRO_LEAK_COUNT names a file that holds how many requests were answered so far, as eight bytes;
MOESTRO_LEAK_BYTES is what the engine keeps of each. Other processes than the engine's are left
alone.
"""

import mmap
import os
import sys
import threading
import time

LOOK_SECONDS = 0.02


def leak(path: str, each: int) -> None:
    kept: list[bytes] = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as count:
        seen = int.from_bytes(count[:8], "little")
        while True:
            time.sleep(LOOK_SECONDS)
            now = int.from_bytes(count[:8], "little")
            # Zeros would take nothing until they are touched.
            kept.extend(b"\1" * each for _ in range(now - seen))
            seen = now


if any("llama_cpp.worker" in one for one in sys.orig_argv) and "MOESTRO_LEAK_COUNT" in os.environ:
    arguments = (os.environ["MOESTRO_LEAK_COUNT"], int(os.environ["MOESTRO_LEAK_BYTES"]))
    threading.Thread(target=leak, args=arguments, daemon=True).start()
