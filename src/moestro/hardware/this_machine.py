"""The inventory of the machine that this runs on."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from moestro.findings import Finding, Severity
from moestro.hardware.cpu import this_cpu
from moestro.hardware.disk import Disk, disk_of
from moestro.hardware.gpu import Gpu
from moestro.hardware.graphics import Graphics, find_graphics
from moestro.hardware.integrated import used_gpus
from moestro.hardware.inventory import Inventory
from moestro.hardware.limits import Limits, read_limits
from moestro.hardware.memory import Memory, this_memory


def this_inventory(*, gpus: bool = True) -> Inventory:
    """Reads the facts; asks nobody over the network. Takes about as long as the GPU driver does.

    With `gpus` False no driver is asked: for tests and for questions about the host alone. Such an
    inventory has another identity where there is a GPU. What was measured here before is merged in.
    """
    from moestro.hardware.catalogue import with_catalogue
    from moestro.hardware.measured import with_measured

    limits = read_limits() if platform.system() == "Linux" else Limits()
    graphics = find_graphics() if gpus else Graphics()
    memory = this_memory(limits)
    used, left_out = used_gpus(graphics.gpus)
    found = [_within_host(gpu, memory) for gpu in used]
    inventory = Inventory(
        name=None,
        source="this machine",
        system=platform.system(),
        cpu=this_cpu(limits),
        memory=replace(memory, unified=any(gpu.shared for gpu in found)),
        disks=tuple(disk for disk, _ in disks_here()),
        gpus=tuple(found),
        findings=(*graphics.findings, *left_out, *_unknown_memory(found)),
    )
    return with_measured(with_catalogue(inventory))


def _within_host(gpu: Gpu, memory: Memory) -> Gpu:
    """A GPU without memory of its own may use the host's, where nothing says how much of it."""
    if not gpu.shared:
        return gpu
    size_bytes = min(gpu.memory_bytes or memory.total_bytes, memory.total_bytes)
    return replace(gpu, memory_bytes=size_bytes, free_bytes=None)


def _unknown_memory(gpus: list[Gpu]) -> list[Finding]:
    return [
        Finding(
            Severity.UNKNOWN,
            "gpu-memory-unknown",
            f"How much memory {gpu.name} has is unknown",
            None,
            "Nothing is planned for it unless --gpu-layers says so. "
            "Describe this machine in a file to plan with it.",
        )
        for gpu in gpus
        if gpu.memory_bytes is None
    ]


def disks_here() -> list[tuple[Disk, Path]]:
    """The disks under the home folder and under this one, each once, with a folder on it."""
    found: dict[str, tuple[Disk, Path]] = {}
    for folder in (Path.home(), Path.cwd()):
        disk = disk_of(folder)
        if disk is not None:
            found.setdefault(f"{disk.name} {disk.mount}", (disk, folder))
    return list(found.values())
