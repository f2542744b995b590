"""A machine from what somebody says of it: what is said stays, the rest is assumed, and said so."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moestro.errors import UsageError
from moestro.findings import Finding, Severity
from moestro.hardware.apple import default_share_bytes
from moestro.hardware.bandwidth import Bandwidth, memory_bandwidth
from moestro.hardware.catalogue import MachineRow
from moestro.hardware.cpu import Cpu
from moestro.hardware.disk import Disk
from moestro.hardware.gpu import Gpu
from moestro.hardware.integrated import used_gpus
from moestro.hardware.inventory import Inventory, InventorySource
from moestro.hardware.memory import Memory
from moestro.units import GIB, format_bytes

ASSUMED_CORES = 8
ASSUMED_MEMORY_BYTES = 64 * GIB
ASSUMED_MEGATRANSFERS = 5600
ASSUMED_CHANNELS = 2
ASSUMED_SYSTEM_BYTES = 2 * GIB
"""What an operating system and a desktop take of the memory."""


@dataclass(frozen=True, slots=True)
class Description:
    """None and empty stand for what was not said. `machine` is a row whose figures are the default.

    `megatransfers` is the number in `DDR5-5600`.
    """

    name: str | None = None
    source: InventorySource = "catalogue"
    machine: MachineRow | None = None
    system: str | None = None
    cpu_model: str | None = None
    architecture: str | None = None
    cores: int | None = None
    instruction_sets: tuple[str, ...] = ()
    numa_nodes: int | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    swap_bytes: int | None = None
    kind: str | None = None
    megatransfers: int | None = None
    channels: int | None = None
    memory_bandwidth: Bandwidth | None = None
    gpus: tuple[Gpu, ...] = ()
    disks: tuple[Disk, ...] = ()
    findings: tuple[Finding, ...] = ()


def build(said: Description) -> Inventory:
    """The inventory that a description makes. A finding lists everything that was assumed.

    Raises:
        HardwareError: figures that cannot be true.
        UsageError: more memory free than there is.
    """
    assumed: list[str] = []
    memory = _memory(said, assumed)
    cpu = _cpu(said, assumed)
    share: list[str] = []
    gpus, left_out = used_gpus((*_own_gpu(said, memory, share), *said.gpus))
    if not left_out:
        assumed += share
    finding = Finding(
        Severity.INFO,
        "host-assumed",
        "Parts of this machine are assumed, because nothing was said of them",
        "; ".join(assumed),
        "Say them: moestro hardware --help shows how.",
    )
    return Inventory(
        name=said.name,
        source=said.source,
        system=said.system or (said.machine.system if said.machine else "Linux"),
        cpu=cpu,
        memory=replace(memory, unified=any(gpu.shared for gpu in gpus)),
        disks=said.disks,
        gpus=gpus,
        findings=(*said.findings, *left_out, *([finding] if assumed else [])),
    )


def _memory(said: Description, assumed: list[str]) -> Memory:
    machine = said.machine
    total_bytes = said.memory_bytes
    if total_bytes is None and machine is not None:
        total_bytes = machine.memory_bytes
    if total_bytes is None:
        total_bytes = ASSUMED_MEMORY_BYTES
        assumed.append(f"{format_bytes(total_bytes)} of memory")
    bandwidth, kind, channels = _memory_speed(said, assumed)
    available_bytes = said.available_bytes
    if available_bytes is None:
        available_bytes = max(total_bytes - ASSUMED_SYSTEM_BYTES, total_bytes // 2)
        taken = format_bytes(total_bytes - available_bytes)
        assumed.append(f"{taken} of memory taken by the system")
    elif available_bytes > total_bytes:
        raise UsageError(
            f"More memory is said to be available ({format_bytes(available_bytes)}) "
            f"than there is ({format_bytes(total_bytes)}).",
            hint="Say how large the memory is, or name less of it as available.",
        )
    return Memory(
        total_bytes=total_bytes,
        available_bytes=available_bytes,
        swap_total_bytes=said.swap_bytes,
        swap_free_bytes=said.swap_bytes,
        kind=kind,
        channels=channels,
        bandwidth=bandwidth,
    )


def _memory_speed(
    said: Description, assumed: list[str]
) -> tuple[Bandwidth, str | None, int | None]:
    if said.memory_bandwidth is not None:
        return said.memory_bandwidth, said.kind, said.channels
    if said.machine is not None and said.kind is None and said.channels is None:
        return said.machine.bandwidth, said.machine.kind, None
    megatransfers, channels, kind = said.megatransfers, said.channels, said.kind
    guessed = []
    if megatransfers is None:
        megatransfers = ASSUMED_MEGATRANSFERS
        kind = kind or f"DDR5-{ASSUMED_MEGATRANSFERS}"
        guessed.append(f"DDR5-{ASSUMED_MEGATRANSFERS}")
    if channels is None:
        channels = ASSUMED_CHANNELS
        guessed.append(f"{ASSUMED_CHANNELS} memory channels")
    bandwidth = memory_bandwidth(megatransfers, channels)
    if guessed:
        assumed.append(" with ".join(guessed))
        bandwidth = replace(bandwidth, source="assumed")
    return bandwidth, kind, channels


def _cpu(said: Description, assumed: list[str]) -> Cpu:
    machine = said.machine
    cores = said.cores
    if cores is None and machine is not None:
        cores = machine.cores
    if cores is None:
        cores = ASSUMED_CORES
        assumed.append(f"{cores} cores")
    architecture = said.architecture or (machine.architecture if machine else "x86_64")
    return Cpu(
        model=said.cpu_model or (machine.name if machine else None),
        architecture=architecture,
        physical_cores=cores,
        usable_cores=cores,
        instruction_sets=said.instruction_sets,
        numa_nodes=said.numa_nodes,
    )


def _own_gpu(said: Description, memory: Memory, assumed: list[str]) -> tuple[Gpu, ...]:
    """The GPU of a whole machine, with its part of a memory that may be of another size."""
    machine = said.machine
    if machine is None:
        return ()
    total_bytes = memory.total_bytes
    if machine.gpu.memory_bytes is None:
        share_bytes = default_share_bytes(total_bytes)
    else:
        share_bytes = int(total_bytes * min(machine.gpu.memory_bytes / machine.memory_bytes, 1))
    if share_bytes < total_bytes:
        assumed.append(f"{format_bytes(share_bytes)} of memory for the GPU")
    return (replace(machine.gpu, memory_bytes=share_bytes),)
