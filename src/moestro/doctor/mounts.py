"""Where file systems are mounted, and which of them holds a folder; no file is touched for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moestro.hardware.disk import unescaped


@dataclass(frozen=True, slots=True)
class Place:
    """One line of mountinfo: `device` is `major:minor`."""

    device: str
    point: str
    read_only: bool


def parse_places(text: str) -> list[Place]:
    """Every mount, in the kernel's order; a later one lies over an earlier one."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(), right.split()
        if len(fields) < 6 or not fields[4].startswith("/"):
            continue
        options = {*fields[5].split(","), *(source[2].split(",") if len(source) > 2 else ())}
        found.append(Place(fields[2], unescaped(fields[4]), "ro" in options))
    return found


def place_of(folder: Path, mounts: list[Place]) -> str | None:
    """The first place where the file system that holds `folder` is mounted, as in `Disk.mount`;
    None if no line says it."""
    over = [place for place in mounts if folder.is_relative_to(place.point)]
    inner = max(reversed(over), key=lambda place: len(place.point), default=None)
    if inner is None:
        return None
    return next(place.point for place in mounts if place.device == inner.device)
