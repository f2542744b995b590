"""The host memory that an engine's process has now, by kind."""

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


def host_bytes(pid: int | None, proc: Path = PROC) -> dict[str, int]:
    """By kind; `resident` alone where the system tells no more. Empty for a process that is gone.

    Processes that an engine starts itself are not counted: those known start none.
    """
    if pid is None:
        return {}
    try:
        return _parsed((proc / str(pid) / "status").read_text(errors="replace"))
    except OSError:
        pass
    try:
        return {"resident": int(psutil.Process(pid).memory_info().rss)}
    except (psutil.Error, ValueError):
        return {}


def _parsed(status: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name in _KINDS and len(words) == 2 and words[0].isdigit() and words[1] == "kB":
            found[_KINDS[name]] = int(words[0]) * 1024
    return found


def in_ram(found: Mapping[str, int]) -> int | None:
    """What of it lies in RAM; None where nothing is known."""
    return sum(size for kind, size in found.items() if kind != "swap") if found else None
