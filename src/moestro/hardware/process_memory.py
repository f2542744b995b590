"""The host memory that a process has now, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

PROC = Path("/proc")

_KINDS: Mapping[str, str] = {
    "RssAnon": "anon",
    "RssFile": "file",
    "RssShmem": "shared",
    "VmSwap": "swap",
}
"""Lines of the kernel's `status` of a process → our words: memory of its own, pages of files that
lie in RAM (mapped weights), shared memory, and what was swapped out."""


def process_memory(pid: int | None, proc: Path = PROC) -> dict[str, int]:
    """Bytes by kind; `resident` alone where the system tells no more. Empty for a process that is
    gone.

    Processes that an engine starts itself are not counted: those known start none.
    """
    if pid is None:
        return {}
    try:
        return parse_status((proc / str(pid) / "status").read_text(errors="replace"))
    except OSError:
        pass
    try:
        return {"resident": int(psutil.Process(pid).memory_info().rss)}
    except (psutil.Error, ValueError):
        return {}


def parse_status(status: str) -> dict[str, int]:
    """Bytes by kind of `/proc/PID/status`; kinds that a kernel does not tell are absent."""
    found: dict[str, int] = {}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name in _KINDS and len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
            found[_KINDS[name]] = int(words[0]) * 1024
    return found


def in_ram(found: Mapping[str, int]) -> int | None:
    """What of it lies in RAM; None where nothing is known."""
    return sum(size for kind, size in found.items() if kind != "swap") if found else None


def own(found: Mapping[str, int]) -> int | None:
    """What is the process's own, mapped files left out and swap included; None where the kernel
    does not tell it apart."""
    known = [found[kind] for kind in ("anon", "swap") if kind in found]
    return sum(known) if known else None


def own_bytes(pid: int) -> int | None:
    """Memory of a process that is its own; None if it is gone.

    Linux: RssAnon and swap. Elsewhere what would be free without it (USS).
    """
    known = own(process_memory(pid))
    if known is not None:
        return known
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.Error:
        return None
