"""What a result was measured on."""

from __future__ import annotations

import platform
from typing import Any

import psutil

from moestro.engine.llama_cpp.version import installed_version
from moestro.hardware.cpu import this_cpu
from moestro.hardware.limits import read_limits


def describe() -> dict[str, Any]:
    cpu = this_cpu(read_limits())
    return {
        "processor": cpu.model,
        "instruction_sets": cpu.instruction_sets,
        "cores": cpu.physical_cores,
        "threads": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "engine": f"xllamacpp {installed_version()}",
    }
