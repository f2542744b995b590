"""The disk that holds the model: how long a start takes, and what a page costs that is not in
memory; and room for what is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from moestro.doctor.case import Case, ModelCase
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.host import Host
from moestro.doctor.mounts import Place, parse_places, place_of
from moestro.findings import Finding, Severity
from moestro.hardware import Disk, disk_of
from moestro.hardware.disk import parse_mounts
from moestro.hardware.measure.reading import reading_rate
from moestro.hardware.store import data_folder
from moestro.model import download, hub
from moestro.units import GIB, MIB, format_bandwidth, format_bytes

_LARGE_BYTES = 1 * GIB
_SLOW = 250e6
"""Bytes per second: a rotating disk's best, half of what SATA moves."""

_LITTLE_ROOM_BYTES = 2 * GIB
_NO_ROOM_BYTES = 200 * MIB
"""Absolute sizes: 5 % of a disk of 4 TB is room enough, of one of 8 GiB it is not."""

_NETWORK = frozenset((
    "9p", "afs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs",
    "vboxsf",
))  # fmt: skip


def _run(case: Case) -> Iterator[Finding]:
    full = list(_room(case))
    yield from full
    if case.inventory.disks and not full:
        disks = "; ".join(_described(disk) for disk in case.inventory.disks)
        yield ok("disk", "There is room on the disks", disks)
    if case.model is not None:
        yield from _reading(case, case.model)


def _room(case: Case) -> Iterator[Finding]:
    mounts = parse_places(case.host.text("proc/self/mountinfo") or "")
    for disk, folders in _written(case, mounts):
        free = disk.free_bytes
        read_only = any(place.read_only for place in mounts if place.point == disk.mount)
        if free is None or free >= _LITTLE_ROOM_BYTES or read_only:
            continue
        title = f"The disk under {disk.mount or disk.name} is nearly full"
        if folders:
            yield Finding(
                Severity.FAIL if free < _NO_ROOM_BYTES else Severity.WARN,
                "disk-nearly-full",
                title,
                f"{format_bytes(free)} free; moestro writes to {', '.join(folders)}",
                "Make room there, or choose other folders: MOESTRO_DATA for what is measured, "
                "HF_HUB_CACHE and MOESTRO_CACHE for downloads.",
            )
        else:
            yield Finding(
                Severity.INFO,
                "disk-nearly-full",
                title,
                f"{format_bytes(free)} free; nothing is written there unless you say so",
                "Make room there before something is written to this folder.",
            )


def _written(case: Case, mounts: list[Place]) -> list[tuple[Disk, list[str]]]:
    """The disks that are known, each with the folders on it that moestro writes to."""
    found: list[tuple[Disk, list[str]]] = [(disk, []) for disk in case.inventory.disks]
    for folder in dict.fromkeys(_folders()):
        holder = place_of(folder, mounts)
        for number, (disk, folders) in enumerate(found):
            # Where the kernel does not tell, the first disk is the one under the home folder.
            if disk.mount == holder if holder is not None else number == 0:
                folders.append(str(folder))
                break
        else:
            disk_here = disk_of(folder, sys=case.host.root / "sys", mounts=_mounts(case.host))
            if holder is not None and disk_here is not None:
                found.append((disk_here, [str(folder)]))
    return found


def _folders() -> Iterator[Path]:
    """The home folder, what is measured, and both kinds of downloads; links are followed."""
    for where in (Path.home, data_folder, download.cache_folder, hub.cache_folder):
        try:
            yield Path(os.path.realpath(where()))
        except RuntimeError:  # a user without a home: the data folder's check says so
            continue


def _reading(case: Case, model: ModelCase) -> Iterator[Finding]:
    size_bytes = sum(file.size_bytes or 0 for file in model.spec.files)
    if size_bytes < _LARGE_BYTES or not model.paths:
        return
    path = model.paths[0]
    disk = disk_of(path, sys=case.host.root / "sys", mounts=_mounts(case.host))
    if disk is None:
        return
    rate = _rate(case, disk, path)
    network = _network(case.host, path)
    slow_kind = network or ("a rotating disk" if disk.kind == "hdd" else None)
    evidence = [f"{format_bytes(size_bytes)} on {slow_kind or disk.name}"]
    if rate is not None:
        evidence.append(f"{format_bandwidth(rate)}: {size_bytes / rate:,.0f} s to read it once")
    said = "; ".join(evidence)
    if rate is not None and rate >= _SLOW:
        yield ok("disk-speed", "The model is read fast enough", said)
        return
    if rate is None and slow_kind is None:
        if disk.kind is None:
            yield unknown(
                "disk-speed-unknown",
                "How fast the model's disk is, is unknown",
                said,
                "Measure it, in the folder that holds the model: moestro hardware --measure",
            )
        return
    if size_bytes > case.inventory.usable_memory_bytes:
        said += "; it is larger than memory, so that it is read again and again"
    yield Finding(
        Severity.WARN,
        "model-on-slow-disk",
        "The model lies on a slow disk",
        said,
        "Copy it to a disk of this machine, an NVMe one if there is one"
        + ("; under WSL, into Linux's own file system." if network == "9p" else "."),
    )


def _rate(case: Case, disk: Disk, path: Path) -> float | None:
    """As it was measured on this disk before; else a moment's look at the file itself."""
    for known in case.inventory.disks:
        same = (known.name, known.mount) == (disk.name, disk.mount)
        if same and known.sequential is not None and known.sequential.source == "measured":
            return known.sequential.bytes_per_second
    return reading_rate(path)


def _network(host: Host, path: Path) -> str | None:
    """The file system's type, where another machine (or, for a guest, the host) holds the file."""
    try:
        device = path.stat().st_dev
    except OSError:
        return None
    mounts = parse_mounts(host.text("proc/self/mountinfo") or "")
    mount = mounts.get((os.major(device), os.minor(device)))
    return mount.filesystem if mount is not None and mount.filesystem in _NETWORK else None


def _mounts(host: Host) -> Path:
    return host.root / "proc/self/mountinfo"


def _described(disk: Disk) -> str:
    known = disk.sequential
    rate = "" if known is None else f", {format_bandwidth(known.bytes_per_second)}"
    return f"{disk.mount or disk.name}: {format_bytes(disk.free_bytes)} free{rate}"


CHECK = Check("disk", "machine", "Is there room, and is the model read fast enough?", _run)
