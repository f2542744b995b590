"""AMD GPUs: through `rocminfo`, or the kernel alone where ROCm's tools are not installed.

Standard library only: the set-up asks for GPUs before anything is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from moestro.findings import Finding, Severity
from moestro.hardware.bandwidth import PCIE_WIDTHS
from moestro.hardware.gpu import Gpu, Link, Version
from moestro.hardware.tools import read_text, run_tool

_KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
_DRM = Path("/sys/class/drm")
_ROCM_VERSION = Path("/opt/rocm/.info/version")
_AMD_VENDOR_ID = "0x1002"

# The speed of one PCIe lane as the kernel writes it, → generation.
_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


@dataclass(frozen=True, slots=True)
class AmdFound:
    """`rocm` is the installed release."""

    gpus: tuple[Gpu, ...] = ()
    rocm: Version | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """What the kernel says of one card in `/sys/class/drm/cardN/device`."""

    slot: str
    memory_bytes: int | None = None
    used_bytes: int | None = None
    shared_bytes: int | None = None
    link: Link | None = None


def find_amd(nodes: Path = _KFD_NODES, drm: Path = _DRM, version: Path = _ROCM_VERSION) -> AmdFound:
    """Never raises; a tool that fails finds nothing."""
    gpus = parse_rocminfo(run_tool("rocminfo") or "") or _kfd_gpus(nodes)
    if not gpus:
        return AmdFound()
    cards = [
        read_card(folder)
        for folder in sorted(drm.glob("card*/device"))
        if re.fullmatch(r"card\d+", folder.parent.name)
        and read_text(folder / "vendor").strip() == _AMD_VENDOR_ID
    ]
    merged, findings = match_cards(gpus, cards)
    return AmdFound(merged, parse_rocm_version(read_text(version)), findings)


def match_cards(
    gpus: tuple[Gpu, ...], cards: list[Card]
) -> tuple[tuple[Gpu, ...], tuple[Finding, ...]]:
    """Adds free memory and link. ROCm and the kernel both list GPUs in the order of their slots;
    where they do not list equally many, nothing tells which is which, and nothing is added."""
    cards = sorted(cards, key=lambda card: card.slot)
    if len(cards) != len(gpus):
        return gpus, ()
    findings: list[Finding] = []
    merged = []
    for gpu, card in zip(gpus, cards, strict=True):
        total_bytes = card.memory_bytes or gpu.memory_bytes
        used_bytes = card.used_bytes
        if total_bytes is None or used_bytes is None or not 0 <= used_bytes <= total_bytes:
            if total_bytes is not None and used_bytes is not None:
                findings.append(
                    Finding(
                        Severity.WARN,
                        "gpu-tool-lies",
                        f"{gpu.name}: the driver reports more memory in use than there is; "
                        "free memory is taken as unknown",
                        f"{used_bytes:,} bytes used of {total_bytes:,}",
                        "Check the amdgpu driver, and reboot after an update of it.",
                    )
                )
            used_bytes = None
        free_bytes = (
            total_bytes - used_bytes if total_bytes is not None and used_bytes is not None else None
        )
        merged.append(replace(gpu, memory_bytes=total_bytes, free_bytes=free_bytes, link=card.link))
    return tuple(merged), tuple(findings)


def read_card(folder: Path) -> Card:
    """One card's facts; what its driver does not tell is None."""
    return Card(
        slot=folder.resolve().name,
        memory_bytes=_positive(read_text(folder / "mem_info_vram_total")),
        used_bytes=_whole(read_text(folder / "mem_info_vram_used")),
        shared_bytes=_positive(read_text(folder / "mem_info_gtt_total")),
        link=parse_link(
            *(
                read_text(folder / name)
                for name in (
                    "current_link_speed",
                    "current_link_width",
                    "max_link_speed",
                    "max_link_width",
                )
            )
        ),
    )


def parse_link(speed: str, width: str, max_speed: str, max_width: str) -> Link | None:
    """`16.0 GT/s PCIe` and `16` → PCIe 4.0 x16; None where nothing is known."""
    lanes, max_lanes = _whole(width), _whole(max_width)
    link = Link(
        _generation(speed),
        lanes if lanes in PCIE_WIDTHS else None,
        _generation(max_speed),
        max_lanes if max_lanes in PCIE_WIDTHS else None,
    )
    return link.with_peak() if link != Link() else None


def parse_rocminfo(text: str) -> tuple[Gpu, ...]:
    """GPU agents out of `rocminfo`; CPUs are agents too.

    An APU's memory is the host's.
    """
    gpus = []
    for agent in re.split(r"\*+\s*\nAgent \d+\s*\n\*+", text)[1:]:
        fields = dict(
            re.findall(r"^  (Name|Marketing Name|Device Type):[ \t]*(.*?)[ \t]*$", agent, re.M)
        )
        target = fields.get("Name", "")
        if fields.get("Device Type") != "GPU" or not target.startswith("gfx"):
            continue
        pools = re.findall(r"GLOBAL; FLAGS: COARSE GRAINED\s*\n\s*Size:\s*(\d+)", agent)
        memory_bytes = max((int(size) * 1024 for size in pools), default=0) or None
        shared = re.search(r"Memory Properties:[ \t]*APU", agent) is not None
        name = fields.get("Marketing Name") or target
        gpus.append(Gpu("amd", name, memory_bytes, target=target, shared=shared))
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
    found = re.match(r"(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def _kfd_gpus(nodes: Path) -> tuple[Gpu, ...]:
    """AMD GPUs as the kernel lists them, for machines without ROCm's tools."""
    targets = (parse_kfd_properties(read_text(path)) for path in sorted(nodes.glob("*/properties")))
    return tuple(Gpu("amd", f"AMD {target}", target=target) for target in targets if target)


def _generation(speed: str) -> int | None:
    return _GENERATIONS.get(speed.strip().split(" ")[0])


def _positive(text: str) -> int | None:
    return _whole(text) or None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,19}", text.strip(), re.ASCII) else None
