"""`--hardware TEXT`: a name in the catalogue, a line that describes a machine, or a TOML file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moestro.errors import HardwareError, UsageError
from moestro.findings import Finding, Severity
from moestro.hardware.bandwidth import Bandwidth, pcie_bandwidth
from moestro.hardware.catalogue import MachineRow, find_row, parse_pcie
from moestro.hardware.described import Description, build
from moestro.hardware.disk import Disk, DiskKind
from moestro.hardware.gpu import Gpu, Link
from moestro.hardware.inventory import Inventory
from moestro.units import GIB, format_bytes, parse_bandwidth, parse_size

EXAMPLE = "2 × rtx-4090, 128 GiB DDR5-5600 dual channel, PCIe 4.0 x8, 16 cores"

_CHANNEL_WORDS = {
    "single": 1, "dual": 2, "triple": 3, "quad": 4, "six": 6, "eight": 8, "octa": 8, "twelve": 12,
}  # fmt: skip
_COUNT = re.compile(r"(\d{1,9})(?:\s*[x×*]\s*|\s+(?=\D))(.+)", re.IGNORECASE)
_CORES = re.compile(r"(\d{1,9})\s*(?:physical\s+)?cores?", re.IGNORECASE)
_DISK = re.compile(r"(?:(.+?/s)\s*)?(nvme|ssd|hdd)(?:\s*(?:at\s+)?(.+?/s))?", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)(?!/)(?:\s+(.*))?", re.IGNORECASE)
_KIND = re.compile(r"(?:LP)?DDR\d[X]?-(\d{3,5})", re.IGNORECASE)
_CHANNELS = re.compile(rf"({'|'.join(_CHANNEL_WORDS)}|\d{{1,9}})[ -]?channels?", re.IGNORECASE)
_RATE = re.compile(r"\d+(?:\.\d+)?\s*[KMGT]i?B/s", re.IGNORECASE)
_MOST_GPUS = 64


def hardware_named(text: str) -> Inventory:
    """The inventory that `text` means.

    Raises:
        UsageError: no such name (the hint holds near ones), a part that is not understood, or a
            file that cannot be read as a machine.
    """
    text = text.strip()
    if text.casefold().endswith(".toml") or _is_file(text):
        from moestro.hardware.toml_form import read_machine_file

        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise UsageError(
                f"{text} cannot be read: nobody here has that home folder.", hint="Check the path."
            ) from error
        return read_machine_file(path)
    try:
        return build(_read_line(text))
    except HardwareError as error:
        raise UsageError(f"“{text}”: {error.sentence}", hint=error.hint) from error


def _is_file(text: str) -> bool:
    """Whether `text` is the path of a file; a line with a bandwidth has a slash in it too."""
    try:
        return "/" in text and Path(text).expanduser().is_file()
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return False


@dataclass(slots=True)
class _Parts:
    """What the parts of a line have said so far."""

    said: dict[str, Any] = field(default_factory=dict)
    gpus: list[Gpu] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    pcie: tuple[int, int] | None = None

    def say(self, what: str, value: Any, words: str) -> None:
        if what in self.said:
            raise UsageError(f"“{words}” says a second time what was said before.")
        self.said[what] = value


def _read_line(text: str) -> Description:
    parts = _Parts()
    for part in text.split(","):
        words = " ".join(part.split())
        if not words:
            raise UsageError(f"“{text}” has an empty part.", hint=f"Write it like “{EXAMPLE}”.")
        _read_part(words, parts)
    gpus = [with_slot(gpu, *parts.pcie) for gpu in parts.gpus] if parts.pcie else parts.gpus
    if parts.pcie and not parts.gpus:
        raise UsageError("A PCIe link was named, and no GPU that hangs on it.")
    return Description(
        name=text,
        gpus=tuple(gpus),
        disks=tuple(parts.disks),
        findings=tuple(parts.findings),
        **parts.said,
    )


def _read_part(words: str, parts: _Parts) -> None:
    if words.casefold().startswith("pcie"):
        if parts.pcie is not None:
            raise UsageError(f"“{words}” says a second time what was said before.")
        parts.pcie = parse_pcie(words)
    elif found := _CORES.fullmatch(words):
        parts.say("cores", int(found[1]), words)
    elif found := _MEMORY.fullmatch(words):
        _read_memory(found, words, parts)
    elif found := _DISK.fullmatch(words):
        parts.disks.append(_disk(found))
    elif words.casefold() in ("cpu", "cpu only", "no gpu"):
        pass
    else:
        _read_name(words, parts)


def _read_name(words: str, parts: _Parts) -> None:
    counted = _COUNT.fullmatch(words)
    count, name = (int(counted[1]), counted[2]) if counted else (1, words)
    # `3090 Ti` begins with a number too, which no machine has as many GPUs as.
    if counted and count > _MOST_GPUS:
        count, name = 1, words
    row = find_row(name)
    if isinstance(row, MachineRow):
        if count != 1:
            raise UsageError(f"{row.name} is a whole machine; plans are made for one machine.")
        parts.say("machine", row, words)
    elif count == 0:
        raise UsageError(f"“{words}” is no GPU at all; leave it out.")
    else:
        parts.gpus += [row.gpu] * count


def _read_memory(found: re.Match[str], words: str, parts: _Parts) -> None:
    size_bytes = parse_size(found[1] + found[2])
    parts.say("memory_bytes", size_bytes, words)
    if "i" not in found[2].casefold() and size_bytes >= GIB:
        parts.findings.append(decimal_size(found[1] + " " + found[2], size_bytes))
    rest = found[3] or ""
    if kind := _KIND.search(rest):
        parts.said["kind"] = kind[0].upper()
        parts.said["megatransfers"] = int(kind[1])
        rest = rest.replace(kind[0], "", 1)
    if channels := _CHANNELS.search(rest):
        word = channels[1].casefold()
        parts.said["channels"] = _CHANNEL_WORDS.get(word) or int(word)
        rest = rest.replace(channels[0], "", 1)
    if rate := _RATE.search(rest):
        parts.said["memory_bandwidth"] = Bandwidth(parse_bandwidth(rate[0]), "user")
        rest = rest.replace(rate[0], "", 1)
    left = [word for word in rest.split() if word.casefold() not in ("ram", "memory", "at", "of")]
    if left:
        raise UsageError(
            f"“{' '.join(left)}” in “{words}” is not understood.",
            hint="Write memory like 128 GiB DDR5-5600 dual channel.",
        )


def decimal_size(text: str, size_bytes: int) -> Finding:
    """Memory is sold in GiB and labelled GB; a size is taken as it is written."""
    return Finding(
        Severity.INFO,
        "decimal-memory",
        "The memory's size was given in decimal units and is taken so",
        f"{text} = {format_bytes(size_bytes)}",
        "Memory modules hold powers of two: write GiB for what the label calls GB.",
    )


def with_slot(gpu: Gpu, generation: int, width: int) -> Gpu:
    """The card in a slot: the link is the lesser of both."""
    card = gpu.link or Link()
    generation = min(generation, card.max_generation or generation)
    width = min(width, card.max_width or width)
    return replace(
        gpu,
        link=Link(generation, width, generation, width, pcie_bandwidth(generation, width)),
    )


def _disk(found: re.Match[str]) -> Disk:
    kinds: dict[str, DiskKind] = {"nvme": "nvme", "ssd": "ssd", "hdd": "hdd"}
    kind = kinds[found[2].casefold()]
    rate = found[1] or found[3]
    return Disk(
        kind, kind=kind, sequential=Bandwidth(parse_bandwidth(rate), "user") if rate else None
    )
