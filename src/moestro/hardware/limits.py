"""What a container or service manager lets this process use of the machine (Linux cgroups)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED_V1_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Limits:
    """None means no limit. `memory_used_bytes` counts what the group uses of its limit already."""

    cores: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


def read_limits(root: Path = _ROOT, own: Path = _OWN) -> Limits:
    """The tightest limits on the way from this process's group up to the root; none elsewhere."""
    cores: list[float] = []
    memory: list[tuple[int, int | None]] = []
    for folder in _folders(root, _read(own)):
        quota = parse_cpu_max(_read(folder / "cpu.max")) or parse_cpu_quota_v1(
            _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        )
        if quota is not None:
            cores.append(quota)
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit_bytes = parse_bytes(_read(folder / limit_name))
            if limit_bytes is not None:
                used_bytes = parse_bytes(_read(folder / used_name))
                cache_bytes = parse_reclaimable(_read(folder / "memory.stat"))
                if used_bytes is not None:
                    used_bytes = max(used_bytes - cache_bytes, 0)
                memory.append((limit_bytes, used_bytes))
    tightest = min(memory, key=lambda pair: pair[0] - (pair[1] or 0), default=(None, None))
    return Limits(min(cores, default=None), *tightest)


def parse_cpu_max(text: str) -> float | None:
    """`150000 100000` → 1.5 cores; `max 100000` → None."""
    words = text.split()
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit() or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def parse_cpu_quota_v1(quota: str, period: str) -> float | None:
    """Microseconds of processor time in each period; a quota of -1 is none."""
    if not quota.strip().isdigit() or not period.strip().isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def parse_bytes(text: str) -> int | None:
    """A number of bytes; `max`, and the absurd number that version 1 uses for it, are None."""
    text = text.strip()
    return int(text) if text.isdigit() and int(text) < _UNLIMITED_V1_BYTES else None


def parse_reclaimable(text: str) -> int:
    """Bytes of file cache in `memory.stat`, which count as used but are given back on demand."""
    fields = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    return sum(int(fields.get(name, "0")) for name in ("inactive_file", "active_file"))


def usable_cores(physical: int, allowed: int, quota: float | None) -> int:
    """Physical cores worth a thread each.

    `allowed` counts the logical processors of the affinity mask. Twins of one core are not known
    from it, so it only lowers the count; a quota of 1.5 cores is used up by two threads.
    """
    cores = min(physical, allowed)
    return max(1, min(cores, math.ceil(quota)) if quota is not None else cores)


def _folders(root: Path, own: str) -> list[Path]:
    """Group folders from the innermost out. A container may see its own group as the root."""
    paths = {
        line.split(":", 2)[1]: line.split(":", 2)[2]
        for line in own.splitlines()
        if line.count(":") >= 2
    }
    folders = []
    for controllers, path in paths.items():
        bases = [root] if not controllers else [root / name for name in controllers.split(",")]
        inner = PurePosixPath(path.strip()).relative_to("/") if path.startswith("/") else None
        for base in bases:
            for part in (inner, *inner.parents) if inner is not None else (PurePosixPath(),):
                folder = base / part
                if ".." not in part.parts and folder not in folders and folder.is_dir():
                    folders.append(folder)
    return folders


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
