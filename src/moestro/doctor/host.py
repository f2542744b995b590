"""The kernel's files and this process's limits, read beneath a root that tests can choose."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moestro.hardware.process_memory import own, parse_status

_MOST_BYTES = 1 << 20

Limit = tuple[int | None, int | None]
"""Soft and hard limit; None is unlimited."""

_LIMITS = {
    "as": "RLIMIT_AS",
    "core": "RLIMIT_CORE",
    "data": "RLIMIT_DATA",
    "memlock": "RLIMIT_MEMLOCK",
    "nofile": "RLIMIT_NOFILE",
    "nproc": "RLIMIT_NPROC",
    "stack": "RLIMIT_STACK",
}


@dataclass(frozen=True, slots=True)
class Host:
    """`root` stands for `/`: paths of the methods are relative to it (`proc/meminfo`).

    `limits` are this process's, by the name that `ulimit` users know (`memlock`, `nofile`, …) and
    in its own unit (bytes, descriptors, processes); empty where the system has none. `system` is as
    `platform.system()` has it. `superuser` may read what others may not.
    """

    root: Path = Path("/")
    system: str = "Linux"
    limits: Mapping[str, Limit] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    superuser: bool = False

    def text(self, path: str) -> str | None:
        """The file's text, without the blanks around it; None where there is none, or it may not be
        read (see `refused`)."""
        data = self.data(path)
        return None if data is None else data.decode(errors="replace").strip()

    def data(self, path: str) -> bytes | None:
        """As `text`, but bytes as they are."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_MOST_BYTES)
        except OSError:
            return None

    def refused(self, path: str) -> bool:
        """The file is there, and this user may not read it."""
        try:
            with (self.root / path).open("rb") as file:
                file.read(1)
        except PermissionError:
            return True
        except OSError:
            return False
        return False

    def number(self, path: str) -> int | None:
        """The whole number that is all of the file; None for anything else."""
        text = self.text(path)
        return int(text) if text and re.fullmatch(r"-?\d{1,19}", text, re.ASCII) else None

    def table(self, path: str) -> dict[str, str]:
        """`name: value` and `name value` lines, as in `proc/meminfo` and `proc/vmstat`."""
        lines = (re.split(r":\s*|\s+", line.strip(), maxsplit=1)
                 for line in (self.text(path) or "").splitlines())  # fmt: skip
        return {parts[0]: parts[1].strip() for parts in lines if len(parts) == 2}

    def kilobytes(self, path: str, name: str) -> int | None:
        """The `name: N kB` of a table, in bytes."""
        return _kilobytes(self.table(path).get(name, ""))

    def own_bytes(self, pid: int | str) -> int | None:
        """Memory of a process that is its own (RssAnon and VmSwap), without mapped files."""
        return own(parse_status(self.text(f"proc/{pid}/status") or ""))

    def paths(self, pattern: str) -> list[str]:
        """What matches, sorted by name with numbers as numbers; relative to the root."""
        found = (str(path.relative_to(self.root)) for path in self.root.glob(pattern))
        return sorted(found, key=_natural)


def _kilobytes(text: str) -> int | None:
    found = re.fullmatch(r"(\d{1,18})(?: kB)?", text, re.ASCII)
    return int(found[1]) * 1024 if found else None


def this_host() -> Host:
    return Host(
        system=platform.system(),
        limits=own_limits(),
        environment=dict(os.environ),
        superuser=hasattr(os, "geteuid") and os.geteuid() == 0,
    )


def own_limits() -> dict[str, Limit]:
    """This process's limits; what it starts inherits them."""
    if sys.platform == "win32":
        return {}
    import resource

    def limit(value: int) -> int | None:
        return None if value == resource.RLIM_INFINITY else value

    found = {}
    for name, constant in _LIMITS.items():
        if hasattr(resource, constant):
            soft, hard = resource.getrlimit(getattr(resource, constant))
            found[name] = (limit(soft), limit(hard))
    return found


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
