"""GPUs and whole machines that one does not own, out of `catalogue.toml`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from moestro.errors import UsageError
from moestro.hardware.bandwidth import Bandwidth, pcie_bandwidth
from moestro.hardware.gpu import Gpu, Link, Vendor, Version
from moestro.hardware.inventory import Inventory
from moestro.units import parse_bandwidth, parse_size

MemoryFrom = Literal["driver", "label"]

_FILE = Path(__file__).with_name("catalogue.toml")
_MAKERS = ("nvidia", "geforce", "amd", "radeon", "instinct", "apple", "quadro")
_SERIES = ("rtx", "gtx", "rx")
_SUGGESTIONS = 5


@dataclass(frozen=True, slots=True)
class GpuRow:
    """A card. `memory_from` says whether the driver's figure or the label's is known."""

    key: str
    gpu: Gpu
    memory_from: MemoryFrom
    source: str
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.gpu.name


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A whole machine whose GPU works in the machine's memory.

    `gpu.memory_bytes` is None where the system's own default decides what the GPU may hold.
    """

    key: str
    name: str
    system: str
    architecture: str
    cores: int
    memory_bytes: int
    kind: str | None
    bandwidth: Bandwidth
    gpu: Gpu
    memory_from: MemoryFrom
    source: str
    aliases: tuple[str, ...] = ()


Row = GpuRow | MachineRow


@cache
def catalogue() -> dict[str, Row]:
    """Every row, by key, in the file's order."""
    import tomllib  # here, as difflib below: only a machine that isn't this one needs them

    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    rows: dict[str, Row] = {key: _gpu_row(key, table) for key, table in tables["gpu"].items()}
    rows |= {key: _machine_row(key, table) for key, table in tables["machine"].items()}
    return rows


def find_row(text: str) -> Row:
    """The row that a person means: `4090`, `RTX4090`, `rtx 4090` and `GeForce RTX 4090` are one.

    Raises:
        UsageError: nothing of that name; the hint holds the nearest ones.
    """
    index = _index()
    compact = _compact(text)
    row = index.get(compact)
    if row is not None:
        return row
    sized = re.fullmatch(r"(.+?)[\s-]+(\d+)\s*gi?b", text.strip(), re.IGNORECASE)
    row = index.get(_compact(sized[1])) if sized else None
    if row is not None and sized is not None and _gib(row) == int(sized[2]):
        return row
    raise UsageError(
        f"“{text.strip()}” is not hardware known here.",
        hint=_suggestion(compact),
        code="hardware-unknown",
    )


def with_catalogue(inventory: Inventory) -> Inventory:
    """Adds what the makers state about the GPUs found: bandwidth where the driver does not tell
    it, and the rate of their matrix units. Unknown cards stay as they are."""
    memory = inventory.memory
    if memory.bandwidth is None:
        row = _machine_of(inventory)
        memory = replace(memory, bandwidth=row.bandwidth if row else None)
    return replace(inventory, memory=memory, gpus=tuple(_completed(gpu) for gpu in inventory.gpus))


def _completed(gpu: Gpu) -> Gpu:
    # Cards of one name come with several sizes of memory; laptop cards have names of their own.
    named = [
        row.gpu
        for row in catalogue().values()
        if row.gpu.name.casefold() == gpu.name.casefold() and row.gpu.vendor == gpu.vendor
    ]
    if not named:
        return gpu
    stated = min(named, key=lambda row: abs((row.memory_bytes or 0) - (gpu.memory_bytes or 0)))
    return replace(
        gpu,
        bandwidth=gpu.bandwidth or stated.bandwidth,
        tflops_f16=gpu.tflops_f16 or stated.tflops_f16,
    )


def _machine_of(inventory: Inventory) -> MachineRow | None:
    """The row of a machine with unified memory: by its processor on Macs, else by its GPU."""
    names = {inventory.cpu.model or "", *(gpu.name for gpu in inventory.gpus if gpu.shared)}
    names = {name.casefold() for name in names}
    for row in catalogue().values():
        if isinstance(row, MachineRow) and {row.name.casefold(), row.gpu.name.casefold()} & names:
            return row
    return None


def _compact(text: str) -> str:
    """Letters and digits alone, without the maker's name."""
    words = re.findall(r"[a-z]+|\d+", text.casefold().replace("+", "plus"))
    return "".join(word for word in words if word not in _MAKERS)


@cache
def _index() -> dict[str, Row]:
    """Every spelling of every row. A key comes before an alias, and that before a full name."""
    index: dict[str, Row] = {}
    rows = list(catalogue().values())
    for spellings in (
        [(row.key, row) for row in rows],
        [(alias, row) for row in rows for alias in row.aliases],
        [(row.name, row) for row in rows],
    ):
        for spelling, row in spellings:
            compact = _compact(spelling)
            index.setdefault(compact, row)
            for series in _SERIES:
                if compact.startswith(series):
                    index.setdefault(compact.removeprefix(series), row)
    return index


def _suggestion(compact: str) -> str:
    import difflib

    index = _index()
    near = difflib.get_close_matches(compact, index, n=3 * _SUGGESTIONS, cutoff=0.5)
    keys = list(dict.fromkeys(index[spelling].key for spelling in near))[:_SUGGESTIONS]
    listed = "moestro hardware --list shows all; a TOML file describes any other."
    return f"Near it: {', '.join(keys)}. {listed}" if keys else listed


def _gib(row: Row) -> int:
    size_bytes = row.memory_bytes if isinstance(row, MachineRow) else row.gpu.memory_bytes or 0
    # A label's number: 24564 MiB are sold as 24 GB.
    return round(size_bytes / (1 << 30) + 0.3)


def _gpu_row(key: str, table: dict[str, Any]) -> GpuRow:
    generation, width = parse_pcie(table["pcie"])
    link = Link(generation, width, generation, width, pcie_bandwidth(generation, width))
    return GpuRow(
        key=key,
        gpu=_gpu(table, table["name"], parse_size(table["memory"]), link),
        memory_from=table["memory_from"],
        source=table["source"],
        aliases=tuple(table.get("aliases", ())),
    )


def _machine_row(key: str, table: dict[str, Any]) -> MachineRow:
    share = table.get("gpu_memory")
    gpu = _gpu(table, table["gpu"], parse_size(share) if share else None, None)
    return MachineRow(
        key=key,
        name=table["name"],
        system=table["system"],
        architecture=table["architecture"],
        cores=table["cores"],
        memory_bytes=parse_size(table["memory"]),
        kind=table.get("kind"),
        bandwidth=_stated(table),
        gpu=replace(gpu, shared=True),
        memory_from=table["memory_from"],
        source=table["source"],
        aliases=tuple(table.get("aliases", ())),
    )


def _gpu(table: dict[str, Any], name: str, memory_bytes: int | None, link: Link | None) -> Gpu:
    vendor: Vendor = table["vendor"]
    capability = table.get("capability")
    return Gpu(
        vendor=vendor,
        name=name,
        memory_bytes=memory_bytes,
        capability=parse_capability(capability) if capability else None,
        target=table.get("target"),
        bandwidth=_stated(table),
        link=link,
        tflops_f16=table.get("tflops_f16"),
    )


def _stated(table: dict[str, Any]) -> Bandwidth:
    return Bandwidth(parse_bandwidth(table["bandwidth"]), "catalogue", detail="the maker's figure")


def parse_pcie(text: str) -> tuple[int, int]:
    """`4.0 x16` → (4, 16). A leading `PCIe` and forms such as `Gen4 x16` are understood.

    Raises:
        UsageError: not a generation and a width.
    """
    found = re.fullmatch(
        r"\s*(?:pcie)?\s*(?:gen)?\s*([1-7])(?:\.0)?\s*[x×]\s*(\d{1,3})\s*", text, re.IGNORECASE
    )
    if found is None:
        raise UsageError(f"“{text}” is not a PCIe link.", hint="Write it like PCIe 4.0 x16.")
    return int(found[1]), int(found[2])


def parse_capability(text: str) -> Version:
    """`8.9` → (8, 9).

    Raises:
        UsageError: not two numbers.
    """
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", str(text))
    if found is None:
        raise UsageError(f"“{text}” is not a compute capability.", hint='Write it like "8.9".')
    return int(found[1]), int(found[2])
