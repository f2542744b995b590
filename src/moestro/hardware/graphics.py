"""GPUs, as far as choosing an engine build and a first plan need them.

Standard library only: the set-up asks these questions before anything is installed.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moestro.hardware.tools import run_tool
from moestro.units import MIB

Vendor = Literal["nvidia", "amd", "apple"]
Version = tuple[int, int]

_KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
_ROCM_VERSION = Path("/opt/rocm/.info/version")
_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Gpu:
    """`capability` is NVIDIA's compute capability, `target` AMD's instruction set (`gfx1100`).

    `memory_bytes` is its own memory; None where unknown or, as on Apple Silicon, shared with the
    CPU.
    """

    vendor: Vendor
    name: str
    memory_bytes: int | None = None
    capability: Version | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Graphics:
    """`cuda` is the newest CUDA release that the NVIDIA driver runs; `rocm` the installed ROCm."""

    gpus: tuple[Gpu, ...] = ()
    cuda: Version | None = None
    rocm: Version | None = None
    vulkan: bool = False


def find_graphics() -> Graphics:
    """Asks the vendors' tools and the kernel. Never raises; a tool that fails finds nothing."""
    if platform.system() == "Darwin":
        return Graphics(gpus=_apple_gpus())
    listed = run_tool(
        "nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"
    )
    nvidia = parse_nvidia_list(listed or "")
    amd = parse_rocminfo(run_tool("rocminfo") or "") or _kfd_gpus(_KFD_NODES)
    return Graphics(
        gpus=nvidia + amd,
        cuda=parse_cuda_version(run_tool("nvidia-smi") or "") if nvidia else None,
        rocm=parse_rocm_version(_read(_ROCM_VERSION)) if amd else None,
        vulkan=bool(amd) and _has_vulkan(),
    )


def parse_nvidia_list(text: str) -> tuple[Gpu, ...]:
    """GPUs out of `nvidia-smi --query-gpu=name,memory.total,compute_cap` (MiB, no units).

    Cards that share the host's memory report `[N/A]` there.
    """
    gpus = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 2)]
        if len(fields) != 3 or (capability := _version(fields[2])) is None:
            continue
        memory_bytes = int(fields[1]) * MIB if fields[1].isdigit() else None
        gpus.append(Gpu("nvidia", fields[0], memory_bytes, capability=capability))
    return tuple(gpus)


def parse_cuda_version(text: str) -> Version | None:
    """The driver's CUDA release out of the table that plain `nvidia-smi` prints."""
    found = re.search(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)", text)
    return _version(found[1]) if found else None


def parse_rocminfo(text: str) -> tuple[Gpu, ...]:
    """GPU agents out of `rocminfo`; CPUs are agents too."""
    gpus = []
    for agent in re.split(r"\*+\s*\nAgent \d+\s*\n\*+", text)[1:]:
        fields = dict(
            re.findall(r"^  (Name|Marketing Name|Device Type):[ \t]*(.*?)[ \t]*$", agent, re.M)
        )
        target = fields.get("Name", "")
        if fields.get("Device Type") != "GPU" or not target.startswith("gfx"):
            continue
        pools = re.findall(r"GLOBAL; FLAGS: COARSE GRAINED\s*\n\s*Size:\s*(\d+)", agent)
        memory_bytes = max((int(size) * 1024 for size in pools), default=None)
        gpus.append(Gpu("amd", fields.get("Marketing Name") or target, memory_bytes, target=target))
    return tuple(gpus)


def parse_kfd_properties(text: str) -> str | None:
    """`gfx1100` out of a kernel topology node's `gfx_target_version 110000`; None for a CPU."""
    found = re.search(r"^gfx_target_version (\d+)$", text, re.M)
    number = int(found[1]) if found else 0
    if number == 0:
        return None
    major, minor, stepping = number // 10000, number // 100 % 100, number % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def parse_rocm_version(text: str) -> Version | None:
    """`7.2.4-93` → (7, 2)."""
    return _version(text.strip())


def _kfd_gpus(nodes: Path) -> tuple[Gpu, ...]:
    """AMD GPUs as the kernel lists them, for machines without ROCm's tools."""
    texts: Iterable[str] = (_read(path) for path in sorted(nodes.glob("*/properties")))
    targets = (parse_kfd_properties(text) for text in texts)
    return tuple(Gpu("amd", f"AMD {target}", target=target) for target in targets if target)


def _apple_gpus() -> tuple[Gpu, ...]:
    if platform.machine() != "arm64":
        return ()
    chip = (run_tool("sysctl", "-n", "machdep.cpu.brand_string") or "Apple Silicon").strip()
    return (Gpu("apple", f"{chip} GPU"),)


def _has_vulkan() -> bool:
    """Whether the Vulkan loader is installed; drivers without it are of no use to an engine."""
    return any(
        next(Path(folder).glob(pattern), None) is not None
        for folder in _LIBRARY_FOLDERS
        for pattern in ("libvulkan.so.1", "*/libvulkan.so.1")
    )


def _version(text: str) -> Version | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
