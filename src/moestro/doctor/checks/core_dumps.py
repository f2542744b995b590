"""What would a crash of the engine write to disk?

A core dump holds what the process allocated, caches and repacked weights; not mapped weights unless
`coredump_filter` asks for them. Into a file it goes whole and uncompressed, and the service does
not come back before it is written. Programs that take dumps through a pipe have bounds of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.units import GIB, format_bytes

WORTH_BYTES = 1 * GIB
LARGE_BYTES = 8 * GIB
"""Half a minute of writing on an ordinary SSD, and room that a system disk often lacks."""

_SHARED_FILES = 1 << 3
"""In `coredump_filter`: shared mappings of files, as the engine maps weights."""


def run(case: Case) -> Iterator[Finding]:
    if case.address is None or case.plan is None or "core" not in case.host.limits:
        return
    pattern = case.host.text("proc/sys/kernel/core_pattern")
    if pattern is None:
        return
    soft = case.host.limits["core"][0]
    need = HostNeed.of(case.plan)
    size_bytes = need.anonymous_bytes
    if _filter(case) & _SHARED_FILES:
        size_bytes += need.mapped_bytes
    if soft is not None:
        size_bytes = min(size_bytes, soft)
    if soft == 0 or pattern.startswith("|") or size_bytes < WORTH_BYTES:
        how = "are off" if soft == 0 else "go to a program" if pattern[:1] == "|" else "are small"
        yield ok("core-dumps", "A crash does not fill the disk", f"core dumps {how}")
        return
    shown = pattern if pattern.isprintable() and len(pattern) <= 80 else ascii(pattern)[:80]
    yield Finding(
        Severity.WARN if size_bytes >= LARGE_BYTES else Severity.INFO,
        "core-dump-large",
        "A crash of the engine would write a large file",
        f"up to {format_bytes(size_bytes)} into “{shown or 'core'}”",
        "Switch dumps off where the service is started: ulimit -c 0, or LimitCORE=0 in its systemd "
        "unit.",
    )


def _filter(case: Case) -> int:
    try:
        return int(case.host.text("proc/self/coredump_filter") or "0", 16)
    except ValueError:
        return 0


CHECK = Check("core-dumps", "service", "What would a crash of the engine write to disk?", run)
