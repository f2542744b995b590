"""What the installed engine build can compute on.

`python -m moestro.engine.llama_cpp.devices` prints the engine's numbers of the processor and of the
GPUs that it uses; with `--facts` also, on a line before that, what the build says of itself
(`facts`). It is asked in a child process, because opening a GPU's driver can take a process down.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.engine.child import child_command, child_environment
from moestro.errors import MoestroError

TIMEOUT_SECONDS = 60.0
_CPU, _GPU, _INTEGRATED_GPU = 0, 1, 2
"""`enum ggml_backend_dev_type`."""


@dataclass(frozen=True, slots=True)
class EngineDevices:
    """The engine's numbers of the processor and of the GPUs that it runs models on."""

    cpu: int = 0
    gpus: tuple[int, ...] = ()

    @staticmethod
    def of(kinds: Sequence[int]) -> EngineDevices:
        """From the kind of each device. As `llama_prepare_model_devices` has it, integrated GPUs
        count where there is no other; accelerators such as BLAS are neither."""
        found = tuple(number for number, kind in enumerate(kinds) if kind == _GPU)
        found = found or tuple(n for n, kind in enumerate(kinds) if kind == _INTEGRATED_GPU)
        return EngineDevices(next(n for n, kind in enumerate(kinds) if kind == _CPU), found)


def engine_gpu_count() -> int:
    """GPUs that the installed engine build uses; 0 too where it could not be asked."""
    return len(engine_devices().gpus)


def engine_devices() -> EngineDevices:
    """What the installed engine build uses; the processor alone where it could not be asked."""
    try:
        done = subprocess.run(
            child_command("llama_cpp.devices"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment(os.environ),
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return EngineDevices()
    last = done.stdout.decode(errors="replace").splitlines()[-1:]
    if done.returncode != 0 or not last or not re.fullmatch(r"\d+( \d+)*", last[0], re.ASCII):
        return EngineDevices()
    cpu, *gpus = map(int, last[0].split())
    return EngineDevices(cpu, tuple(gpus))


def _build(library: ctypes.CDLL) -> dict[str, object]:
    """What the build says of itself: the names of its backends, and what each was compiled for."""
    for name, arguments in (
        ("ggml_backend_reg_get", [ctypes.c_size_t]),
        ("ggml_backend_reg_name", [ctypes.c_void_p]),
        ("llama_print_system_info", []),
    ):
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_void_p if name == "ggml_backend_reg_get" else ctypes.c_char_p
    library.ggml_backend_reg_count.restype = ctypes.c_size_t
    backends = [
        library.ggml_backend_reg_name(library.ggml_backend_reg_get(number)).decode()
        for number in range(library.ggml_backend_reg_count())
    ]
    return {"backends": backends, "system": library.llama_print_system_info().decode()}


def main() -> int:
    from moestro.engine.llama_cpp.abi import open_library

    try:
        library = open_library()
    except MoestroError as error:
        print(error.sentence, file=sys.stderr)
        return 1
    devices = [library.ggml_backend_dev_get(n) for n in range(library.ggml_backend_dev_count())]
    found = EngineDevices.of([library.ggml_backend_dev_type(device) for device in devices])
    if "--facts" in sys.argv[1:]:
        print(json.dumps(_build(library)))
    print(found.cpu, *found.gpus)
    return 0


if __name__ == "__main__":
    sys.exit(main())
