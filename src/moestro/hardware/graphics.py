"""The GPUs of this machine, whoever made them, and what their drivers run.

Standard library only: the set-up asks these questions before anything is installed.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from moestro.findings import Finding
from moestro.hardware.amd import find_amd
from moestro.hardware.apple import find_apple
from moestro.hardware.gpu import Gpu, Version
from moestro.hardware.nvidia import find_nvidia

_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Graphics:
    """`cuda` is the newest CUDA release that the NVIDIA driver runs; `rocm` the installed ROCm."""

    gpus: tuple[Gpu, ...] = ()
    cuda: Version | None = None
    rocm: Version | None = None
    vulkan: bool = False
    findings: tuple[Finding, ...] = ()


def find_graphics() -> Graphics:
    """Asks the vendors' libraries and tools and the kernel. Never raises; a tool that fails finds
    nothing."""
    if platform.system() == "Darwin":
        gpus, findings = find_apple()
        return Graphics(gpus=gpus, findings=findings)
    nvidia, amd = find_nvidia(), find_amd()
    return Graphics(
        gpus=nvidia.gpus + amd.gpus,
        cuda=nvidia.cuda,
        rocm=amd.rocm,
        vulkan=bool(amd.gpus) and _has_vulkan(),
        findings=nvidia.findings + amd.findings,
    )


def _has_vulkan() -> bool:
    """Whether the Vulkan loader is installed; drivers without it are of no use to an engine."""
    return any(
        next(Path(folder).glob(pattern), None) is not None
        for folder in _LIBRARY_FOLDERS
        for pattern in ("libvulkan.so.1", "*/libvulkan.so.1")
    )
