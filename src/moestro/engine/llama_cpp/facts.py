"""What the installed llama.cpp is: its release, its build, the instructions it was compiled for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence

from moestro.engine.child import child_command, child_environment
from moestro.engine.facts import EngineFacts
from moestro.engine.llama_cpp.builds import CUDA_BUILDS
from moestro.engine.llama_cpp.devices import TIMEOUT_SECONDS
from moestro.engine.llama_cpp.version import (
    EXPECTED_VERSION,
    PACKAGE,
    check_version,
    installed_version,
)
from moestro.errors import EngineStartFailed
from moestro.hardware.gpu import Gpu, Version

NAME = f"llama.cpp ({PACKAGE})"
ILLEGAL_INSTRUCTION = "engine-illegal-instruction"
"""The code of an error that says that this processor lacks what the build was compiled for."""

_HINT = f"Reinstall it: pip install --force-reinstall {PACKAGE}=={EXPECTED_VERSION}"

# ggml's words for what the processor's code was compiled for (`ggml_backend_cpu_get_features`) →
# the names of `hardware.Cpu`.
_INSTRUCTION_SETS = {
    "AVX": "AVX",
    "F16C": "F16C",
    "FMA": "FMA",
    "AVX2": "AVX2",
    "BMI2": "BMI2",
    "AVX_VNNI": "AVX-VNNI",
    "AVX512": "AVX-512",
    "AVX512_VBMI": "AVX-512-VBMI",
    "AVX512_VNNI": "AVX-512-VNNI",
    "AVX512_BF16": "AVX-512-BF16",
    "AMX_INT8": "AMX-INT8",
    "NEON": "NEON",
    "FP16_VA": "FP16",
    "DOTPROD": "DOTPROD",
    "MATMUL_INT8": "I8MM",
    "SVE": "SVE",
    "SME": "SME",
}
# Names of backends → builds, where the version does not name the build.
_BUILDS = {"CUDA": "cuda", "ROCm": "rocm", "MTL": "metal", "Vulkan": "vulkan"}
_MOST_BYTES = 1 << 20


def engine_facts() -> EngineFacts:
    """Asks the installed engine, in a child process: half a second, or what a GPU's driver takes.

    Raises:
        EngineMismatch: it is missing, or another release.
        EngineStartFailed: it is there and cannot be used.
    """
    installed = installed_version()
    check_version(installed)
    try:
        done = subprocess.run(
            child_command("llama_cpp.devices", "--facts"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment(os.environ),
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineStartFailed(
            f"The engine did not say within {TIMEOUT_SECONDS:.0f} seconds what it can compute on.",
            hint="A GPU's driver that hangs does that: try the driver's own tool, such as "
            "nvidia-smi, and restart the machine if that hangs too.",
        ) from error
    except OSError as error:
        raise EngineStartFailed(f"The engine could not be started: {error.strerror}.") from error
    if done.returncode:
        raise _failed(done.returncode, done.stderr)
    return _facts(installed, done.stdout[-_MOST_BYTES:].decode(errors="replace"))


def obstacle(build: str, gpu: Gpu, driver: Version) -> str | None:
    """Why a CUDA build of the engine (`cu128`) cannot run on `gpu` under a driver for the CUDA
    release `driver`; None where it can, or is no such build."""
    known = next((cuda for cuda in CUDA_BUILDS if cuda.kind == build), None)
    return None if known is None or gpu.capability is None else known.obstacle(gpu, driver)


def parse_instruction_sets(system: str) -> tuple[str, ...]:
    """Out of `llama_print_system_info`: `CPU : SSE3 = 1 | AVX2 = 1 | …`, among other backends'."""
    found = dict(re.findall(r"(\w+) = (\d+) \|", _part(system, "CPU")))
    return tuple(name for word, name in _INSTRUCTION_SETS.items() if found.get(word) == "1")


def parse_capabilities(system: str) -> tuple[Version, ...] | None:
    """Out of the same: `CUDA : ARCHS = 500,610,…,1200 | …`."""
    found = re.search(r"ARCHS = ([\d,]+) \|", _part(system, "CUDA"))
    if found is None:
        return None
    return tuple(divmod(int(number) // 10, 10) for number in found[1].split(",") if number)


def _part(system: str, backend: str) -> str:
    """What one backend says: up to the next one's name."""
    found = re.search(rf"(?:^|\| ){backend} : ((?:\w+ = [^|]* \| ?)*)", system)
    return found[1] if found else ""


def _facts(installed: str, printed: str) -> EngineFacts:
    *before, last = printed.splitlines() or [""]
    try:
        said = json.loads(before[-1] if before else "")
        numbers = [int(number) for number in last.split()]
        system, backends = str(said["system"]), list(map(str, said["backends"]))
    except (ValueError, LookupError, TypeError) as error:
        raise EngineStartFailed("The engine did not say what it is.", hint=_HINT) from error
    return EngineFacts(
        name=NAME,
        version=installed.partition("+")[0],
        build=_build(installed, backends),
        instruction_sets=parse_instruction_sets(system),
        gpus=max(len(numbers) - 1, 0),
        capabilities=parse_capabilities(system),
    )


def _build(installed: str, backends: Sequence[str]) -> str:
    tag = installed.partition("+")[2]
    return tag or next((_BUILDS[name] for name in backends if name in _BUILDS), "cpu")


def _failed(status: int, log: bytes) -> EngineStartFailed:
    if status == -signal.SIGILL:
        return EngineStartFailed(
            "The engine was compiled for instructions that this processor does not have.",
            hint="Compile it for this processor: pip install --force-reinstall --no-deps "
            f"--no-binary {PACKAGE} {PACKAGE}=={EXPECTED_VERSION}",
            code=ILLEGAL_INSTRUCTION,
        )
    lines = tuple(log[-4096:].decode(errors="replace").splitlines()[-5:])
    why = f"was ended by signal {-status}" if status < 0 else "failed"
    return EngineStartFailed(
        f"The engine {why} when it was asked what it can compute on.", hint=_HINT, log_tail=lines
    )
