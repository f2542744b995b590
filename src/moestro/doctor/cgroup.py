"""The control groups that this process is in: what a container or service manager allows it.

A container mostly sees its own group as the root of the tree, while the kernel tells the path that
the host knows; so every folder on the way up is looked at, and those that are not there are passed
over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from moestro.doctor.host import Host
from moestro.hardware.limits import parse_bytes

_TREE = "sys/fs/cgroup"
_MOST_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit of one group and what its members use of it; None where the kernel does not say."""

    path: str
    limit: int
    used: int | None

    @property
    def room(self) -> int:
        return max(self.limit - (self.used or 0), 0)


def own_path(host: Host) -> str | None:
    """The path of this process's group, as systemd names groups; None where nothing tells."""
    paths = dict(_lines(host))
    for name in ("", "name=systemd"):
        if paths.get(name, "/") != "/":
            return paths[name]
    return "/" if paths else None


def memory_bound(host: Host, *, soft: bool = False) -> Bound | None:
    """The limit that leaves least room. File pages that can be dropped do not count as used.
    `soft`: the one above which the kernel slows the group down instead of ending a process."""
    names = [("memory.high" if soft else "memory.max", "memory.current")]
    if not soft:
        names.append(("memory.limit_in_bytes", "memory.usage_in_bytes"))
    found = []
    for folder in _folders(host, "memory"):
        for limit_name, used_name in names:
            limit = _bytes(host, f"{folder}/{limit_name}")
            if limit is None:
                continue
            used = _bytes(host, f"{folder}/{used_name}")
            if used is not None:
                used = max(used - _reclaimable(host, folder), 0)
            found.append(Bound(folder, limit, used))
    return min(found, key=lambda bound: bound.room, default=None)


def task_bound(host: Host) -> Bound | None:
    """The limit of threads and processes that leaves least room."""
    found = []
    for folder in _folders(host, "pids"):
        limit = host.number(f"{folder}/pids.max")
        if limit is not None and limit >= 0:
            found.append(Bound(folder, limit, host.number(f"{folder}/pids.current")))
    return min(found, key=lambda bound: bound.room, default=None)


def swap_bytes(host: Host, folder: str) -> int | None:
    """What a group may swap; None without a limit of its own."""
    return _bytes(host, f"{folder}/memory.swap.max")


def _reclaimable(host: Host, folder: str) -> int:
    stat = host.table(f"{folder}/memory.stat")
    sizes = (stat.get(name, "") for name in ("inactive_file", "active_file"))
    return sum(int(size) for size in sizes if size.isdecimal() and len(size) < 20)


def _bytes(host: Host, path: str) -> int | None:
    number = host.number(path)
    return None if number is None or number < 0 else parse_bytes(str(number))


def _lines(host: Host) -> Iterator[tuple[str, str]]:
    """Controllers (empty in version 2) and path of each hierarchy."""
    for line in (host.text("proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            yield parts[1], parts[2]


def _folders(host: Host, controller: str) -> Iterator[str]:
    """From the innermost group out, relative to the host's root."""
    for controllers, path in _lines(host):
        if not controllers:
            bases = [_TREE, f"{_TREE}/unified"]
        elif controller in controllers.split(","):
            bases = [f"{_TREE}/{name}" for name in dict.fromkeys((controller, controllers))]
        else:
            continue
        inner = PurePosixPath(path.strip("/"))
        inside = ".." not in inner.parts and len(inner.parts) < _MOST_DEPTH and "\0" not in path
        ways = (inner, *inner.parents) if inside else (PurePosixPath(),)
        for base in bases:
            for way in dict.fromkeys(ways):
                yield str(base / way)
