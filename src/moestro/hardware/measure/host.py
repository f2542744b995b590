"""Measures what needs no engine: memory and disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from moestro.errors import HardwareError
from moestro.findings import Finding, Severity
from moestro.hardware.disk import Disk
from moestro.hardware.inventory import Inventory
from moestro.hardware.measure.disk import measure_disk
from moestro.hardware.measure.memory import measure_memory
from moestro.hardware.measured import Measurements, disk_key

Say = Callable[[str], None]


def measure_host(
    inventory: Inventory, disks: Iterable[tuple[Disk, Path]], say: Say
) -> Iterator[Measurements | Finding]:
    """Some 30 seconds; `say` hears what is being measured. Each part comes as soon as it is known,
    so that an interruption loses only what was under way; what cannot be measured is a finding."""
    threads = inventory.cpu.usable_cores
    say(f"memory, with 1 and with {threads} threads" if threads > 1 else "memory")
    try:
        yield Measurements(measure_memory(threads, inventory.memory.available_bytes))
    except HardwareError as error:
        yield _not_measured(error)
    for disk, folder in disks:
        say(f"disk {disk.name}, in {folder}")
        try:
            yield Measurements(disks={disk_key(disk): measure_disk(folder)})
        except HardwareError as error:
            yield _not_measured(error)


def _not_measured(error: HardwareError) -> Finding:
    return Finding(Severity.WARN, "not-measured", error.sentence, None, error.hint)
