"""A machine described in a TOML file. Every size and rate carries its unit.

The form is documented in docs/guides/describe-a-machine.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from moestro.errors import HardwareError, UsageError
from moestro.hardware.bandwidth import Bandwidth
from moestro.hardware.catalogue import MachineRow, find_row, parse_capability, parse_pcie
from moestro.hardware.described import Description, build
from moestro.hardware.disk import DISK_KINDS, Disk
from moestro.hardware.facts import check_finite
from moestro.hardware.gpu import VENDORS, Gpu, Link
from moestro.hardware.inventory import Inventory
from moestro.hardware.named import with_slot
from moestro.units import parse_bandwidth, parse_size

_MOST_FILE_BYTES = 1 << 20
_MOST_GPUS = 64
_KIND = re.compile(r"(?:LP)?DDR\d[X]?-(\d{3,5})", re.IGNORECASE)
_TABLES = ("cpu", "memory", "gpus", "disks")
Read = TypeVar("Read")


def read_machine_file(path: Path) -> Inventory:
    """The inventory that a TOML file describes.

    Raises:
        UsageError: no such file, no TOML, a key that is not known, a size without its unit, or
            figures that cannot be true. The sentence names file and key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"{path} cannot be read: {reason}.", hint="Check the path.") from error
    if len(content) > _MOST_FILE_BYTES:
        raise UsageError(f"{path} is too large to describe a machine.")
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # TOML's and UTF-8's errors, and numbers of thousands of digits
        raise UsageError(f"{path} is not TOML: {error}.") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply to describe a machine.") from error
    try:
        return build(_description(tables, path.stem))
    except (UsageError, HardwareError) as error:
        raise UsageError(f"{path}: {error.sentence}", hint=error.hint) from error


class _Table:
    """One table of the file; remembers which keys were asked for, to name those that were not."""

    def __init__(self, name: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise UsageError(f"“{name}” must be a table.", hint=f"Begin it with [{name}].")
        self.name = name
        self.content = content
        self.known: dict[str, None] = {}  # ordered, each once

    def path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def know(self, *keys: str) -> None:
        self.known |= dict.fromkeys(keys)

    def get(self, key: str, kind: type[Read], what: str) -> Read | None:
        """The value, None where the key is absent; any other type is refused."""
        self.know(key)
        value = self.content.get(key)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UsageError(f"{self.path(key)} must be {what}, not {_shown(value)}.")
        return value

    def text(self, key: str, among: Collection[str] = ()) -> str | None:
        value = self.get(key, str, "text in quotes")
        if value is not None and among and value not in among:
            raise UsageError(f"{self.path(key)} must be one of {', '.join(among)}, not {value!r}.")
        return value

    def whole(self, key: str) -> int | None:
        value = self.get(key, int, "a whole number")
        if value is not None and value <= 0:
            raise UsageError(f"{self.path(key)} must be above zero, not {_shown(value)}.")
        if value is not None:
            check_finite(self.path(key), value)
        return value

    def number(self, key: str) -> float | None:
        self.know(key)
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{self.path(key)} must be a number, not {_shown(value)}.")
        check_finite(self.path(key), value)
        return float(value)

    def size(self, key: str) -> int | None:
        return self._with_unit(key, parse_size, "128 GiB")

    def rate(self, key: str) -> Bandwidth | None:
        rate = self._with_unit(key, parse_bandwidth, "89.6 GB/s")
        return None if rate is None else Bandwidth(rate, "user")

    def _with_unit(self, key: str, parse: Callable[[str], Read], example: str) -> Read | None:
        self.know(key)
        value = self.content.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not re.search(r"[A-Za-z]", value):
            raise UsageError(
                f"{self.path(key)} lacks its unit: {_shown(value)}.",
                hint=f'Write it like {key} = "{example}".',
            )
        try:
            return parse(value)
        except UsageError as error:
            raise UsageError(
                f"{self.path(key)}: {error.sentence}", hint=f'Write it like {key} = "{example}".'
            ) from error

    def tables(self, key: str) -> list[_Table]:
        entries = self.get(key, list, f"written as [[{key}]]") or []
        return [_Table(f"{key}[{index}]", entry) for index, entry in enumerate(entries)]

    def end(self) -> None:
        """Names keys that nothing asked for."""
        import difflib

        for key in self.content:
            if key not in self.known:
                near = difflib.get_close_matches(key, self.known, n=1)
                meant = f"Did you mean {near[0]}? " if near else ""
                raise UsageError(
                    f"{self.path(key)} is not a key known here.",
                    hint=f"{meant}Known are {', '.join(self.known)}.",
                )


def _description(content: dict[str, Any], file_name: str) -> Description:
    top = _Table("", content)
    machine = _machine(top)
    said = Description(
        name=top.text("name") or file_name,
        source="file",
        system=top.text("system", ("Linux", "Darwin", "Windows")),
        machine=machine,
    )
    top.know(*_TABLES)
    said = _with_cpu(said, _Table("cpu", content.get("cpu", {})))
    said = _with_memory(said, _Table("memory", content.get("memory", {})))
    gpus = [gpu for table in top.tables("gpus") for gpu in _gpus(table)]
    disks = [_disk(table) for table in top.tables("disks")]
    top.end()
    return replace(said, gpus=tuple(gpus), disks=tuple(disks))


def _machine(top: _Table) -> MachineRow | None:
    name = top.text("machine")
    if name is None:
        return None
    row = find_row(name)
    if not isinstance(row, MachineRow):
        raise UsageError(
            f"machine: {row.name} is a GPU, not a whole machine.",
            hint=f'Put it under [[gpus]] as name = "{row.key}".',
        )
    return row


def _with_cpu(said: Description, table: _Table) -> Description:
    sets = table.get("instruction_sets", list, 'a list such as ["AVX2"]') or []
    if not all(isinstance(name, str) for name in sets):
        raise UsageError('cpu.instruction_sets must be a list such as ["AVX2"].')
    said = replace(
        said,
        cpu_model=table.text("model"),
        architecture=table.text("architecture"),
        cores=table.whole("cores"),
        instruction_sets=tuple(sets),
        numa_nodes=table.whole("numa_nodes"),
    )
    table.end()
    return said


def _with_memory(said: Description, table: _Table) -> Description:
    kind = table.text("kind")
    found = _KIND.fullmatch(kind) if kind else None
    if kind and not found:
        raise UsageError(f"memory.kind must be like DDR5-5600, not {kind!r}.")
    said = replace(
        said,
        memory_bytes=table.size("size"),
        available_bytes=table.size("available"),
        swap_bytes=table.size("swap"),
        kind=kind.upper() if kind else None,
        megatransfers=int(found[1]) if found else None,
        channels=table.whole("channels"),
        memory_bandwidth=table.rate("bandwidth"),
    )
    table.end()
    return said


def _gpus(table: _Table) -> list[Gpu]:
    """The card of this entry, as often as `count` says. A name in the catalogue brings its figures;
    any other name needs a vendor and a memory size."""
    name = table.text("name")
    if name is None:
        raise UsageError(f"{table.name} has no name.", hint='Write name = "rtx-4090".')
    vendor = table.text("vendor", VENDORS)
    count = table.whole("count") or 1
    if count > _MOST_GPUS:
        raise UsageError(f"{table.path('count')} must be at most {_MOST_GPUS}, not {count}.")
    memory_bytes, free_bytes = table.size("memory"), table.size("free")
    bandwidth, link_bandwidth = table.rate("bandwidth"), table.rate("host_to_device")
    pcie, capability = table.text("pcie"), table.text("capability")
    target, tflops = table.text("target"), table.number("tflops_f16")
    display, shared = (table.get(key, bool, "true or false") for key in ("display", "shared"))
    table.end()
    gpu = _base(table, name, vendor, memory_bytes)
    if shared is None:
        shared = gpu.shared or gpu.vendor == "apple"
    _check_shared(table, gpu, shared)
    if pcie is not None:
        gpu = with_slot(gpu, *parse_pcie(pcie))
    link = None if shared else gpu.link
    if link_bandwidth is not None:
        link = replace(link or Link(), bandwidth=link_bandwidth)
    gpu = replace(
        gpu,
        memory_bytes=memory_bytes or gpu.memory_bytes,
        free_bytes=free_bytes,
        shared=shared,
        bandwidth=bandwidth or gpu.bandwidth,
        capability=parse_capability(capability) if capability else gpu.capability,
        target=target or gpu.target,
        tflops_f16=tflops or gpu.tflops_f16,
        link=link,
        display=display,
    )
    return [gpu] * count


def _check_shared(table: _Table, gpu: Gpu, shared: bool) -> None:
    """A GPU either works in the host's memory or hangs on a link."""
    if gpu.vendor == "apple" and not shared:
        raise UsageError(
            f"{table.path('shared')}: Apple's GPUs have no memory of their own.",
            hint="Leave the key out, or write shared = true.",
        )
    for key in ("pcie", "host_to_device", "free"):
        if shared and table.content.get(key) is not None:
            raise UsageError(
                f"{table.path(key)}: a GPU that shares the host's memory has none of its own, "
                "and no link to it.",
                hint=f"Leave out {key}; what is free is said with memory.available.",
            )


def _base(table: _Table, name: str, vendor: str | None, memory_bytes: int | None) -> Gpu:
    for known in VENDORS:
        if vendor == known and memory_bytes is not None:
            try:
                row = find_row(name)
            except UsageError:
                return Gpu(known, name, memory_bytes)
            return _card(table, row)
    try:
        return _card(table, find_row(name))
    except UsageError as error:
        raise UsageError(
            f"{table.path('name')}: {error.sentence}",
            hint=f"{error.hint} Any other card needs vendor and memory.",
            code=error.code,
        ) from error


def _card(table: _Table, row: Any) -> Gpu:
    if isinstance(row, MachineRow):
        raise UsageError(
            f"{table.path('name')}: {row.name} is a whole machine.",
            hint=f'Write machine = "{row.key}" at the top of the file.',
        )
    gpu: Gpu = row.gpu
    return gpu


def _disk(table: _Table) -> Disk:
    kind = table.text("kind", DISK_KINDS)
    disk = Disk(
        name=table.text("name") or kind or table.name,
        kind=next((known for known in DISK_KINDS if known == kind), None),
        mount=table.text("mount"),
        free_bytes=table.size("free"),
        sequential=table.rate("sequential"),
        random=table.rate("random"),
    )
    table.end()
    return disk


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 40 else text[:39] + "…"
