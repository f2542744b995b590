"""The processor: its name, its cores, what it can do at once."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from moestro.errors import HardwareError
from moestro.hardware.facts import check_positive
from moestro.hardware.limits import Limits, usable_cores
from moestro.hardware.tools import read_text, run_tool

_CPUINFO = Path("/proc/cpuinfo")
_NODES_WITH_CPUS = Path("/sys/devices/system/node/has_cpu")

# The kernel's flag → the name that people and engines use, in the order of growing ability.
_INSTRUCTION_SETS = {
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "f16c": "F16C",
    "fma": "FMA",
    "avx2": "AVX2",
    "bmi2": "BMI2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512vbmi": "AVX-512-VBMI",
    "avx512_vnni": "AVX-512-VNNI",
    "avx512_bf16": "AVX-512-BF16",
    "avx512_fp16": "AVX-512-FP16",
    "amx_tile": "AMX",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "fphp": "FP16",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}
_APPLE_FEATURES = {
    "FEAT_FP16": "FP16",
    "FEAT_DotProd": "DOTPROD",
    "FEAT_I8MM": "I8MM",
    "FEAT_BF16": "BF16",
    "FEAT_SME": "SME",
}


@dataclass(frozen=True, slots=True)
class Cpu:
    """`usable_cores` respects affinity and a container's quota; twins of one core count once.

    `instruction_sets` is empty where nothing tells them. `numa_nodes` counts memory nodes that have
    processors.
    """

    model: str | None
    architecture: str
    physical_cores: int | None
    usable_cores: int
    instruction_sets: tuple[str, ...] = ()
    numa_nodes: int | None = None

    def __post_init__(self) -> None:
        if not self.architecture:
            raise HardwareError("A processor needs an architecture, such as x86_64.")
        check_positive(
            physical_cores=self.physical_cores,
            usable_cores=self.usable_cores,
            numa_nodes=self.numa_nodes,
        )


def this_cpu(limits: Limits) -> Cpu:
    """Asks the kernel. `limits` is what the container leaves."""
    import psutil  # here, because the set-up imports this room before anything is installed

    allowed = allowed_cpus()
    physical = psutil.cpu_count(logical=False)
    model, instruction_sets = _model_and_abilities()
    return Cpu(
        model=model,
        architecture=platform.machine(),
        physical_cores=physical,
        usable_cores=usable_cores(physical or allowed, allowed, limits.cores),
        instruction_sets=instruction_sets,
        numa_nodes=parse_id_list(read_text(_NODES_WITH_CPUS)),
    )


def allowed_cpus() -> int:
    """Logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_model(text: str) -> str | None:
    """The processor's name in `/proc/cpuinfo`; arm64 kernels often give none."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return " ".join(value.split())
    return None


def parse_instruction_sets(text: str) -> tuple[str, ...]:
    """Names of what the first processor in `/proc/cpuinfo` can do (`flags`; arm64 `Features`)."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return tuple(name for flag, name in _INSTRUCTION_SETS.items() if flag in flags)
    return ()


def parse_apple_features(text: str) -> tuple[str, ...]:
    """Names out of `sysctl hw.optional.arm` lines such as `hw.optional.arm.FEAT_I8MM: 1`."""
    present = {line.split(":")[0].rpartition(".")[2] for line in text.splitlines() if ": 1" in line}
    return ("NEON", *(name for feature, name in _APPLE_FEATURES.items() if feature in present))


def parse_id_list(text: str) -> int | None:
    """How many ids the kernel's `0-1,4` names; None for an empty or strange one."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit() or int(last or first) < int(first):
            return None
        count += int(last or first) - int(first) + 1
    return count


def _model_and_abilities() -> tuple[str | None, tuple[str, ...]]:
    if platform.system() == "Darwin":
        model = (run_tool("sysctl", "-n", "machdep.cpu.brand_string") or "").strip()
        features = run_tool("sysctl", "hw.optional.arm") or ""
        arm = platform.machine() == "arm64"
        return model or None, parse_apple_features(features) if arm else ()
    # The first processor tells enough; the whole list is long on a large server.
    text = read_text(_CPUINFO, most_bytes=1 << 14)
    return parse_model(text) or platform.processor() or None, parse_instruction_sets(text)
