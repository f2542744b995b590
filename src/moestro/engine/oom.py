"""How often the kernel ended somebody for want of memory: the difference tells whether it did."""

from __future__ import annotations

from pathlib import Path

VMSTAT = Path("/proc/vmstat")
CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")


def oom_kills() -> int | None:
    """Processes that were ended so since the boot, on this machine and in this container's own
    group; None where nobody counts them (other systems than Linux)."""
    counts = [_count(path) for path in (VMSTAT, CGROUP_EVENTS)]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _count(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None
