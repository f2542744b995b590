"""Which build of the engine suits this machine, and why.

`xllamacpp` is published for CPUs and Apple Silicon on the default package index, and for GPUs on
indexes of its own. The tables below are from that project's README for the pinned release.

`python3 -m moestro.engine.llama_cpp.builds` prints the choice. Standard library only: the set-up
runs it before anything is installed.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from moestro.hardware.gpu import Gpu, Version
from moestro.hardware.graphics import Graphics, find_graphics

BuildKind = Literal["cpu", "metal", "cu132", "cu128", "rocm-7.2.4", "rocm-6.4.1", "vulkan"]

_INDEX = "https://xorbitsai.github.io/xllamacpp/whl/"
_GPU_GLIBC: Version = (2, 35)


@dataclass(frozen=True, slots=True)
class Host:
    """`system` and `machine` as `platform` names them; `glibc` None on other C libraries."""

    system: str
    machine: str
    glibc: Version | None


@dataclass(frozen=True, slots=True)
class Build:
    """`index_url` None is the default package index. `reason` is a sentence for people."""

    kind: BuildKind
    index_url: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class _CudaBuild:
    """What one CUDA wheel holds.

    `native` capabilities run as they are on any driver of the same CUDA generation (`generation`).
    Others from `floor` up are compiled by the driver at first use, which must know `toolkit`.
    """

    kind: BuildKind
    toolkit: Version
    generation: Version
    floor: Version
    native: frozenset[Version]

    def obstacle(self, gpu: Gpu, driver: Version) -> str | None:
        """Why this wheel cannot run on `gpu`; None if it can."""
        capability = gpu.capability or (0, 0)
        if capability < self.floor:
            return f"{gpu.name} is older than CUDA {_dotted(self.toolkit)} supports"
        needed = self.generation if capability in self.native else self.toolkit
        if driver < needed:
            return f"{gpu.name} needs a driver for CUDA {_dotted(needed)}"
        return None


CUDA_BUILDS = (
    _CudaBuild(
        "cu132",
        toolkit=(13, 2),
        generation=(13, 0),
        floor=(7, 5),
        native=frozenset({(7, 5), (8, 6), (8, 9), (12, 0), (12, 1)}),
    ),
    _CudaBuild(
        "cu128",
        toolkit=(12, 8),
        generation=(12, 0),
        floor=(5, 0),
        native=frozenset({(8, 6), (8, 9), (12, 0)}),
    ),
)

_ROCM_6_TARGETS = frozenset({"gfx1030", "gfx1031", "gfx1032", "gfx1100", "gfx1101", "gfx1102"})
_ROCM_TARGETS: Mapping[BuildKind, tuple[int, frozenset[str]]] = {
    "rocm-7.2.4": (
        7,
        _ROCM_6_TARGETS | {"gfx1150", "gfx1151", "gfx1200", "gfx1201", "gfx950"},
    ),
    "rocm-6.4.1": (6, _ROCM_6_TARGETS),
}


def choose_build(host: Host, graphics: Graphics) -> Build:
    """The build for this machine; the CPU build, with the reason, where no other one will do."""
    if host.system == "Darwin":
        if host.machine == "arm64":
            return Build("metal", None, "Apple Silicon: the standard macOS build uses its GPU.")
        return _cpu("Intel Macs are not supported beyond the CPU.")
    if host.system != "Linux":
        return _cpu(f"{host.system} itself is not supported; use Linux, on Windows through WSL2.")
    nvidia = [gpu for gpu in graphics.gpus if gpu.vendor == "nvidia"]
    amd = [gpu for gpu in graphics.gpus if gpu.vendor == "amd"]
    if not nvidia and not amd:
        return _cpu("No NVIDIA or AMD GPU was found.")
    if host.machine not in ("x86_64", "aarch64"):
        return _cpu(f"There is no GPU build for {host.machine} processors.")
    if host.glibc is None or host.glibc < _GPU_GLIBC:
        has = f"glibc {_dotted(host.glibc)}" if host.glibc else "another C library"
        return _cpu(f"The GPU builds need glibc {_dotted(_GPU_GLIBC)} or newer; this is {has}.")
    if nvidia:
        return _for_nvidia(nvidia, graphics.cuda)
    return _for_amd(amd, graphics, host)


def _for_nvidia(gpus: list[Gpu], driver: Version | None) -> Build:
    if driver is None:
        return _cpu(f"{gpus[0].name} was found, but not which CUDA release its driver supports.")
    # The build that serves most GPUs, then the one that serves more of them natively.
    ranked = sorted(
        CUDA_BUILDS,
        key=lambda build: (
            sum(build.obstacle(gpu, driver) is None for gpu in gpus),
            sum(gpu.capability in build.native for gpu in gpus),
        ),
        reverse=True,
    )
    best = ranked[0]
    served = [gpu for gpu in gpus if best.obstacle(gpu, driver) is None]
    if not served:
        why = CUDA_BUILDS[-1].obstacle(gpus[0], driver)
        return _cpu(f"{why}; this driver supports CUDA {_dotted(driver)}.")
    code = "native code" if served[0].capability in best.native else "compiled at first start"
    reason = f"{served[0].name}, driver for CUDA {_dotted(driver)} ({code})."
    left = [gpu.name for gpu in gpus if gpu not in served]
    if left:
        reason += f" Not used: {', '.join(left)}."
    return Build(best.kind, _INDEX + best.kind, reason)


def _for_amd(gpus: list[Gpu], graphics: Graphics, host: Host) -> Build:
    first = gpus[0]
    if host.machine != "x86_64":
        return _cpu(f"There is no AMD build for {host.machine} processors.")
    rocm = f"ROCm {_dotted(graphics.rocm)}" if graphics.rocm else "no ROCm"
    for kind, (major, targets) in _ROCM_TARGETS.items():
        installed = graphics.rocm is not None and graphics.rocm[0] == major
        if installed and any(gpu.target in targets for gpu in gpus):
            return Build(kind, _INDEX + kind, f"{first.name} ({first.target}), {rocm}.")
    if graphics.vulkan:
        why = f"{first.name} ({first.target}), {rocm}: no ROCm build fits, Vulkan does."
        return Build("vulkan", _INDEX + "vulkan", why)
    return _cpu(
        f"{first.name} ({first.target}), {rocm}: no ROCm build fits, and the Vulkan loader "
        "(libvulkan.so.1) is missing."
    )


def _cpu(reason: str) -> Build:
    return Build("cpu", None, reason)


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def this_host() -> Host:
    name, version = platform.libc_ver()
    parts = version.split(".")
    known = name == "glibc" and len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit()
    glibc = (int(parts[0]), int(parts[1])) if known else None
    return Host(platform.system(), platform.machine(), glibc)


def main() -> int:
    build = choose_build(this_host(), find_graphics())
    if "--json" in sys.argv[1:]:
        print(json.dumps(asdict(build)))
    else:
        print(f"{build.kind}: {build.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
