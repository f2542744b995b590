"""Apple Silicon: one GPU, which works in the host's own memory.

Standard library only: the set-up asks for GPUs before anything is installed.
"""

from __future__ import annotations

import platform
import re

from moestro.findings import Finding, Severity
from moestro.hardware.gpu import Gpu
from moestro.hardware.tools import run_tool
from moestro.units import GIB, MIB, format_bytes

_SMALL_SHARE = 2 / 3
_LARGE_SHARE = 3 / 4
_LARGE_FROM_BYTES = 36 * GIB


def find_apple() -> tuple[tuple[Gpu, ...], tuple[Finding, ...]]:
    """Never raises; nothing on Intel Macs."""
    if platform.machine() != "arm64":
        return (), ()
    chip = (run_tool("sysctl", "-n", "machdep.cpu.brand_string") or "Apple Silicon").strip()
    total_bytes = parse_number(run_tool("sysctl", "-n", "hw.memsize") or "")
    wired_mib = parse_number(run_tool("sysctl", "-n", "iogpu.wired_limit_mb") or "")
    return apple_gpu(chip, total_bytes, wired_mib)


def apple_gpu(
    chip: str, total_bytes: int | None, wired_mib: int | None
) -> tuple[tuple[Gpu, ...], tuple[Finding, ...]]:
    """The GPU, with the part of the host's memory that it may hold at once.

    The owner can set that part (`iogpu.wired_limit_mb`, in MiB; 0 is the default). The default is
    not documented. Public readings of Metal's `recommendedMaxWorkingSetSize` are 10.67 GiB of 16,
    48 of 64, and 107.5 of 128 under macOS 26: 2/3 on small machines, 3/4 and more on larger ones.
    """
    if total_bytes is None:
        return (Gpu("apple", f"{chip} GPU", shared=True),), ()
    if wired_mib and wired_mib * MIB <= total_bytes:
        return (Gpu("apple", f"{chip} GPU", wired_mib * MIB, shared=True),), ()
    share_bytes = default_share_bytes(total_bytes)
    finding = Finding(
        Severity.INFO,
        "gpu-share-assumed",
        "How much memory the GPU may hold is assumed: macOS does not say it here",
        f"{format_bytes(share_bytes)} of {format_bytes(total_bytes)}",
        "sudo sysctl iogpu.wired_limit_mb=… sets it until the next start.",
    )
    return (Gpu("apple", f"{chip} GPU", share_bytes, shared=True),), (finding,)


def default_share_bytes(total_bytes: int) -> int:
    """What macOS lets the GPU hold where nobody chose: assumed, see `apple_gpu`."""
    share = _LARGE_SHARE if total_bytes >= _LARGE_FROM_BYTES else _SMALL_SHARE
    return int(total_bytes * share)


def parse_number(text: str) -> int | None:
    """A number of zero or more; None for anything else."""
    text = text.strip()
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None
