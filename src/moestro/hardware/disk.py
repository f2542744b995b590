"""The disk that holds a path: what it is and how much is free."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moestro.errors import HardwareError
from moestro.hardware.bandwidth import Bandwidth
from moestro.hardware.facts import check_not_negative
from moestro.hardware.tools import read_text

DiskKind = Literal["nvme", "ssd", "hdd"]
DISK_KINDS: tuple[DiskKind, ...] = ("nvme", "ssd", "hdd")

_SYS = Path("/sys")
_MOUNTS = Path("/proc/self/mountinfo")
# Disks of a virtual machine: what the guest hears of rotation is not about the real disk.
_VIRTUAL = re.compile(r"(vd|xvd|zram|loop|ram|nbd)")


@dataclass(frozen=True, slots=True)
class Disk:
    """`name` is the kernel's (`nvme0n1`) or, where there is no block device, the file system's.

    `sequential` is reading a large file from its start to its end, `random` reading small blocks
    anywhere in it, several at once.
    """

    name: str
    mount: str | None = None
    kind: DiskKind | None = None
    free_bytes: int | None = None
    sequential: Bandwidth | None = None
    random: Bandwidth | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in DISK_KINDS:
            raise HardwareError(
                f"“{self.kind}” is not a kind of disk.", hint=f"One of {', '.join(DISK_KINDS)}."
            )
        check_not_negative(free_disk_space=self.free_bytes)


def disk_of(path: Path, *, sys: Path = _SYS, mounts: Path = _MOUNTS) -> Disk | None:
    """The disk that holds `path` or, where it is not there yet, its nearest parent."""
    path = _existing(path)
    try:
        device = path.stat().st_dev
        room = os.statvfs(path)
    except OSError:
        return None
    mount = parse_mounts(read_text(mounts)).get((os.major(device), os.minor(device)))
    block = _block_device(sys / "dev/block", os.major(device), os.minor(device), mount)
    name = block.name if block else mount.filesystem if mount else "?"
    return Disk(
        name=name,
        mount=mount.point if mount else None,
        kind=_kind(block) if block else None,
        free_bytes=room.f_bavail * room.f_frsize,
    )


@dataclass(frozen=True, slots=True)
class Mount:
    point: str
    filesystem: str
    source: str


def parse_mounts(text: str) -> dict[tuple[int, int], Mount]:
    """Device numbers → the first place where each is mounted, out of `/proc/self/mountinfo`."""
    found: dict[tuple[int, int], Mount] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(), right.split()
        if len(fields) < 5 or len(source) < 2 or not re.fullmatch(r"\d+:\d+", fields[2]):
            continue
        major, minor = (int(part) for part in fields[2].split(":"))
        found.setdefault((major, minor), Mount(unescaped(fields[4]), source[0], source[1]))
    return found


def _block_device(folder: Path, major: int, minor: int, mount: Mount | None) -> Path | None:
    """The whole disk's folder in `/sys/devices`; None for tmpfs, network and stacked file systems.

    File systems such as btrfs number themselves apart from their disk, which their mount names.
    """
    if major == 0 and mount is not None and mount.source.startswith("/dev/"):
        try:
            number = os.stat(mount.source).st_rdev
        except OSError:
            return None
        major, minor = os.major(number), os.minor(number)
    link = folder / f"{major}:{minor}"
    if not link.exists():
        return None
    device = link.resolve()
    if (device / "partition").exists():
        device = device.parent
    # Encrypted and logical volumes lie on other devices; one is enough to know the kind.
    below = sorted((device / "slaves").glob("*"))
    if below:
        device = below[0].resolve()
        return device.parent if (device / "partition").exists() else device
    return device


def _kind(block: Path) -> DiskKind | None:
    if block.name.startswith("nvme"):
        return "nvme"
    if _VIRTUAL.match(block.name):
        return None
    match read_text(block / "queue/rotational").strip():
        case "0":
            return "ssd"
        case "1":
            return "hdd"
        case _:
            return None


def _existing(path: Path) -> Path:
    path = path.expanduser().absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def unescaped(text: str) -> str:
    r"""The kernel writes blanks in paths as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
