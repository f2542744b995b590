"""The whole of a machine: processor, memory, disks, GPUs. Facts only, each checked for sense."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar

from moestro.errors import HardwareError
from moestro.findings import Finding, Severity
from moestro.hardware.bandwidth import Bandwidth
from moestro.hardware.cpu import Cpu
from moestro.hardware.disk import Disk
from moestro.hardware.gpu import Gpu, Link
from moestro.hardware.memory import Memory
from moestro.units import GIB

Facts = TypeVar("Facts")
InventorySource = Literal["this machine", "catalogue", "file"]


@dataclass(frozen=True, slots=True)
class Inventory:
    """`name` is None for a machine that was probed; `system` as `platform.system()` calls it."""

    name: str | None
    source: InventorySource
    system: str
    cpu: Cpu
    memory: Memory
    disks: tuple[Disk, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.source not in ("this machine", "catalogue", "file"):
            raise HardwareError(f"“{self.source}” is not where an inventory can come from.")
        for gpu in self.gpus:
            if gpu.shared and (gpu.memory_bytes or 0) > self.memory.total_bytes:
                raise HardwareError(
                    f"{gpu.name} cannot share more memory than the machine has.",
                    hint="Its memory is a part of the host's: name less of it, or more for that.",
                )

    @property
    def usable_memory_bytes(self) -> int:
        """Bytes a model can take: free host memory and what is free of the GPUs' own memory."""
        own = [gpu for gpu in self.gpus if not gpu.shared]
        return self.memory.available_bytes + sum(
            (gpu.memory_bytes or 0) if gpu.free_bytes is None else gpu.free_bytes for gpu in own
        )

    @property
    def identity(self) -> str:
        """A key for what was measured on this machine: processor, usable cores, RAM, GPUs.

        Free memory and the host's name are not in it, nor the last MiB of RAM, which changes with
        the kernel. Safe as a file name.
        """
        ram_gib = round(self.memory.total_bytes / GIB)
        parts = [
            self.system,
            self.cpu.architecture,
            self.cpu.model or "",
            *self.cpu.instruction_sets,
            str(self.cpu.physical_cores),
            str(self.cpu.usable_cores),
            str(ram_gib),
            *sorted(f"{gpu.vendor} {gpu.name}" for gpu in self.gpus),
        ]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
        slug = re.sub(r"[^a-z0-9]+", "-", (self.cpu.model or self.cpu.architecture).lower())
        return f"{slug.strip('-')[:40]}-{self.cpu.usable_cores}c-{ram_gib}g-{digest}"

    def with_findings(self, *findings: Finding) -> Inventory:
        return replace(self, findings=(*self.findings, *findings))

    def to_json(self) -> dict[str, Any]:
        """Sizes in bytes, bandwidths in bytes per second; unknown is null."""
        found: dict[str, Any] = asdict(self)
        found["identity"] = self.identity
        found["findings"] = [finding.to_json() for finding in self.findings]
        return found

    @classmethod
    def from_json(cls, value: Any) -> Inventory:
        """What `to_json` wrote.

        Raises:
            HardwareError: it was not written by it, or its facts cannot be true.
        """
        try:
            return _inventory(value)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise HardwareError(
                f"This description of a machine is not one that moestro wrote ({error!r})."
            ) from error


def _inventory(value: dict[str, Any]) -> Inventory:
    inner = {
        "cpu": _cpu(value["cpu"]),
        "memory": _memory(value["memory"]),
        "disks": tuple(_disk(disk) for disk in value["disks"]),
        "gpus": tuple(_gpu(gpu) for gpu in value["gpus"]),
        "findings": tuple(
            _made(Finding, {**finding, "severity": Severity(finding["severity"])})
            for finding in value["findings"]
        ),
    }
    own = {name: value[name] for name in ("name", "source", "system")}
    return _made(Inventory, own | inner)


_KINDS: dict[str, type] = {"str": str, "int": int, "bool": bool}


def _made(kind: type[Facts], value: dict[str, Any]) -> Facts:
    """`kind` with these values. Its own checks are of facts; here texts are texts, whole numbers
    whole, and yes and no nothing else.

    Raises TypeError: one of them is of another type.
    """
    for field in fields(kind):  # type: ignore[arg-type]
        name, _, none = str(field.type).partition(" | ")
        given = value.get(field.name, field.default)
        if name in _KINDS and type(given) is not _KINDS[name] and not (none and given is None):
            raise TypeError(f"{field.name} is {given!r}")
    return kind(**value)


def _bandwidth(value: dict[str, Any] | None) -> Bandwidth | None:
    return None if value is None else _made(Bandwidth, value)


def _cpu(value: dict[str, Any]) -> Cpu:
    sets = tuple(value["instruction_sets"])
    if not all(isinstance(one, str) for one in sets):
        raise TypeError(f"instruction_sets is {sets!r}")
    return _made(Cpu, {**value, "instruction_sets": sets})


def _memory(value: dict[str, Any]) -> Memory:
    return _made(Memory, {**value, "bandwidth": _bandwidth(value["bandwidth"])})


def _disk(value: dict[str, Any]) -> Disk:
    figures = {key: _bandwidth(value[key]) for key in ("sequential", "random")}
    return _made(Disk, {**value, **figures})


def _gpu(value: dict[str, Any]) -> Gpu:
    link = value["link"]
    if link is not None:
        link = _made(Link, {**link, "bandwidth": _bandwidth(link["bandwidth"])})
    capability = value["capability"]
    return _made(
        Gpu,
        {
            **value,
            "link": link,
            "bandwidth": _bandwidth(value["bandwidth"]),
            "capability": None if capability is None else (int(capability[0]), int(capability[1])),
        },
    )
