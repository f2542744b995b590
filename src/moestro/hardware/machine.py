"""The facts about this machine that the first plan needs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from moestro.hardware.graphics import Gpu, find_graphics
from moestro.hardware.limits import Limits, read_limits, usable_cores


@dataclass(frozen=True, slots=True)
class Machine:
    """`usable_cores` and `memory_available_bytes` respect affinity, quotas and container limits.

    `memory_bytes` is what is built in or, where smaller, the container's limit.
    """

    system: str
    architecture: str
    processor: str | None
    physical_cores: int | None
    usable_cores: int
    memory_bytes: int
    memory_available_bytes: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def usable_memory_bytes(self) -> int:
        """Bytes a model can take: free host memory and the GPUs' own memory together."""
        return self.memory_available_bytes + sum(gpu.memory_bytes or 0 for gpu in self.gpus)


def this_machine() -> Machine:
    """Reads the facts; asks nobody over the network. Takes about as long as `nvidia-smi` does."""
    import psutil  # here, because the set-up imports this room before anything is installed

    limits = read_limits() if platform.system() == "Linux" else Limits()
    memory = psutil.virtual_memory()
    physical = psutil.cpu_count(logical=False)
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        processor=_processor(),
        physical_cores=physical,
        usable_cores=usable_cores(physical or allowed_cpus(), allowed_cpus(), limits.cores),
        memory_bytes=min(memory.total, limits.memory_bytes or memory.total),
        memory_available_bytes=available_bytes(memory.available, limits),
        gpus=find_graphics().gpus,
    )


def available_bytes(host_bytes: int, limits: Limits) -> int:
    """What can still be had: the host's free memory, or what a container's limit leaves of it."""
    if limits.memory_bytes is None:
        return host_bytes
    return max(min(host_bytes, limits.memory_bytes - (limits.memory_used_bytes or 0)), 0)


def allowed_cpus() -> int:
    """Logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_cpuinfo(text: str) -> str | None:
    """The processor's name in `/proc/cpuinfo`; arm64 kernels often give none."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    return None


def _processor() -> str | None:
    if platform.system() != "Linux":
        return platform.processor() or None
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return parse_cpuinfo(file.read(4096))
    except OSError:
        return None
