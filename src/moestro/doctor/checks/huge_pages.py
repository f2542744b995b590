"""Do huge pages serve the engine, or take memory from it?

A static pool (`vm.nr_hugepages`) is set aside for programs that ask for it by name; the engine does
not, so the pool is lost to it. Transparent huge pages serve memory that a program allocates, not
pages of mapped files; the engine does not ask for them, so of the kernel's three words only
`always` gives it any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.units import GIB, KIB, format_bytes

_POOLS = "sys/kernel/mm/hugepages"
_TRANSPARENT = "sys/kernel/mm/transparent_hugepage/enabled"
_MOST_BYTES = 1 << 60

IDLE_SHARE = 0.03
"""Of all memory in unused pages of a pool."""

WORTH_BYTES = 4 * GIB
"""Of allocated memory on the host that every token passes: less gains nothing to speak of."""


def run(case: Case) -> Iterator[Finding]:
    host = case.host
    pools = _pools(host)
    memory = host.kilobytes("proc/meminfo", "MemTotal")
    if not pools or not memory:
        return
    pool, idle = sum(one.size_bytes for one in pools), sum(one.idle_bytes for one in pools)
    if idle > memory * IDLE_SHARE:
        yield Finding(
            Severity.WARN,
            "huge-pages-reserved",
            "A pool of huge pages keeps memory that the engine cannot use",
            f"{format_bytes(idle)} of the pool's {format_bytes(pool)} are unused, "
            f"{idle / memory:.0%} of all memory",
            "Unless another program waits for it, take it out of /etc/sysctl.d and of the kernel's "
            "command line (hugepages=), and give it back: "
            + "; ".join(one.give_back for one in pools if one.idle_bytes),
        )
        return
    mode = _transparent(host)
    need = HostNeed.of(case.plan).resident_bytes if case.plan is not None else 0
    if mode == "never" and need >= WORTH_BYTES:
        yield Finding(
            Severity.INFO,
            "huge-pages-off",
            "Caches and repacked weights lie in small pages",
            f"transparent_hugepage is never; {format_bytes(need)} of the plan is memory that huge "
            "pages could hold",
            "Compare with them on: fewer page-table look-ups are mostly a gain of a few per cent. "
            f"echo always | sudo tee /{_TRANSPARENT}",
        )
        return
    yield ok(
        "huge-pages", "Huge pages are not in the way",
        f"static pool {format_bytes(pool)}, transparent {mode or 'not offered'}",
    )  # fmt: skip


def _transparent(host: Host) -> str | None:
    found = re.search(r"\[(\w{1,20})\]", host.text(_TRANSPARENT) or "", re.ASCII)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class _Pool:
    """A static pool; `idle_bytes` are its unused pages that nobody has reserved. `give_back` is the
    command that frees them."""

    size_bytes: int
    idle_bytes: int
    give_back: str


def _pools(host: Host) -> list[_Pool]:
    sizes = [_pool(host, path) for path in host.paths(f"{_POOLS}/hugepages-*kB")]
    known = [size for size in sizes if size is not None]
    if known:
        return known
    meminfo = {
        name: host.kilobytes("proc/meminfo", name)
        for name in ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "Hugepagesize")
    }
    # Counts of pages come through the same door as sizes in kB.
    total, free, reserved = (
        None if meminfo[name] is None else (meminfo[name] or 0) // KIB
        for name in ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd")
    )
    page = meminfo["Hugepagesize"]
    if total is None or free is None or page is None:
        return []
    idle = max(free - (reserved or 0), 0) * page
    return [_Pool(total * page, idle, "sudo sysctl -w vm.nr_hugepages=0")]


def _pool(host: Host, path: str) -> _Pool | None:
    found = re.search(r"hugepages-(\d{1,9})kB$", path, re.ASCII)
    total, free, reserved = (
        host.number(f"{path}/{name}") for name in ("nr_hugepages", "free_hugepages",
                                                   "resv_hugepages")
    )  # fmt: skip
    if found is None or total is None or free is None or min(total, free) < 0:
        return None
    page = int(found[1]) * KIB
    if total * page >= _MOST_BYTES:
        return None
    idle = max(free - max(reserved or 0, 0), 0) * page
    # The switch vm.nr_hugepages is for pages of the default size alone.
    return _Pool(total * page, idle, f"echo 0 | sudo tee /{path}/nr_hugepages")


CHECK = Check("huge-pages", "memory", "Do huge pages take memory from the engine?", run)
