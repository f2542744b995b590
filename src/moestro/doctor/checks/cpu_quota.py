"""Processor time: a container's quota, and threads against what may be used.

The engine's threads wait for each other after every operation, so one that has to stop stops all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity

_CONTROLLERS = ("cpu", "cpuacct", "cpu,cpuacct", "unified", "")
_LEAST_PERIODS = 50
"""Of 100 ms mostly: what is less tells of the start only."""

_TOO_OFTEN = 0.05

MOST_THREADS = 512
"""The engine's own bound (`GGML_MAX_N_THREADS`)."""


def _run(case: Case) -> Iterator[Finding]:
    troubles = [*_throttled(case), *_threads(case)]
    yield from troubles
    cores = case.inventory.cpu.usable_cores
    if not troubles:
        yield ok("cpu-quota", "Nothing holds the threads back", f"{cores} cores may be used")


def _throttled(case: Case) -> Iterator[Finding]:
    counted = []
    for folder in _groups(case.host):
        table = case.host.table(f"{folder}/cpu.stat")
        periods, throttled = _count(table, "nr_periods"), _count(table, "nr_throttled")
        if periods >= _LEAST_PERIODS:
            counted.append((min(throttled / periods, 1.0), throttled, periods))
    share, throttled, periods = max(counted, default=(0.0, 0, 0))
    if share > _TOO_OFTEN:
        yield Finding(
            Severity.WARN,
            "cpu-quota-throttles",
            "The container's quota of processor time stops this program again and again",
            f"stopped in {throttled:,} of {periods:,} periods, {100 * share:.0f} %",
            "Raise the quota (docker run --cpus, CPUQuota= of the service, limits.cpu of the pod), "
            "or serve on fewer threads than it has cores: moestro up MODEL --threads "
            f"{max(case.inventory.cpu.usable_cores - 1, 1)}",
        )


def _threads(case: Case) -> Iterator[Finding]:
    if case.plan is None:
        return
    threads, cores = case.plan.settings.threads, case.inventory.cpu.usable_cores
    if threads > MOST_THREADS:
        yield Finding(
            Severity.FAIL,
            "too-many-threads",
            "The plan computes on more threads than the engine can have",
            f"{threads:,} threads; the engine takes {MOST_THREADS} at most, {cores} cores may be "
            "used",
            f"Serve on as many as there are cores: moestro up MODEL --threads {cores}",
        )
    elif threads > cores:
        yield Finding(
            Severity.WARN,
            "too-many-threads",
            "The plan computes on more threads than there are cores for them",
            f"{threads} threads, {cores} cores may be used",
            f"Serve on as many as there are cores: moestro up MODEL --threads {cores}",
        )


def _groups(host: Host) -> list[str]:
    """Folders of this process's groups and of those around them, version 1 and 2. A container may
    see its own group as the root."""
    folders: dict[str, None] = {}
    for line in (host.text("proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not number.isdigit() or controllers not in _CONTROLLERS or not path.startswith("/"):
            continue
        inner = PurePosixPath(path).relative_to("/")
        for group in (inner, *inner.parents):
            if ".." not in group.parts:
                base = PurePosixPath("sys/fs/cgroup") / controllers / group
                folders[str(base)] = None
    return list(folders)


def _count(table: dict[str, str], name: str) -> int:
    text = table.get(name, "")
    return int(text) if text.isdigit() and len(text) < 20 else 0


CHECK = Check(
    "cpu-quota", "machine", "Does a quota or a lack of cores stop the threads?", _run, quick=True
)
