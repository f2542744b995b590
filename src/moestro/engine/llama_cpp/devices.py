"""What the installed engine build can compute on.

`python -m moestro.engine.llama_cpp.devices` prints the number of its GPUs. It is asked in a child
process, because opening a GPU's driver can take a process down.
"""

from __future__ import annotations

import os
import subprocess
import sys

from moestro.engine.llama_cpp.child import child_command, child_environment
from moestro.errors import MoestroError

TIMEOUT_SECONDS = 60.0
_CPU, _GPU, _INTEGRATED_GPU = 0, 1, 2
"""`enum ggml_backend_dev_type`."""


def engine_gpu_count() -> int:
    """GPUs that the installed engine build sees; 0 too where it could not be asked."""
    try:
        done = subprocess.run(
            child_command("devices"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment(os.environ),
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    last = done.stdout.split()[-1:]
    return int(last[0]) if done.returncode == 0 and last and last[0].isdigit() else 0


def main() -> int:
    from moestro.engine.llama_cpp.abi import open_library

    try:
        library = open_library()
    except MoestroError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    devices = [library.ggml_backend_dev_get(n) for n in range(library.ggml_backend_dev_count())]
    kinds = [library.ggml_backend_dev_type(device) for device in devices]
    print(sum(kind in (_GPU, _INTEGRATED_GPU) for kind in kinds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
