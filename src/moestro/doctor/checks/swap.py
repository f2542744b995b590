"""Does the plan live on swap, or does the host already?

Swap takes what the engine holds beside plain weights: caches and repacked weights, all of which
decoding touches for every token. Pages that lie in swap since long and are not missed are harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.units import MIB, format_bytes

MUCH_SHARE = 0.1
"""Of the swap in use … """

MUCH_BYTES = 256 * MIB
SHORT_SHARE = 0.1
"""… while less than this of the memory is available, is a host that lacks memory."""

STALLED_PERCENT = 5.0
"""Of the last minute in which some program waited for memory (the kernel's own account)."""


def run(case: Case) -> Iterator[Finding]:
    found = [*_needed(case), *_in_use(case.host)]
    yield from found
    total = case.host.kilobytes("proc/meminfo", "SwapTotal")
    if found or total is None:
        return
    if total == 0:
        yield ok("swap", "There is no swap, so nothing is swapped")
        return
    free = case.host.kilobytes("proc/meminfo", "SwapFree")
    used = "?" if free is None else format_bytes(max(total - free, 0))
    yield ok(
        "swap", "Swap is not in the way", f"{used} of {format_bytes(total)} used{_traffic(case)}"
    )


def _needed(case: Case) -> Iterator[Finding]:
    memory = case.inventory.memory
    swap = memory.swap_free_bytes or 0
    if case.plan is None or not swap:
        return
    need = HostNeed.of(case.plan)
    if need.anonymous_bytes <= memory.available_bytes:
        return
    at_once = need.resident_bytes > memory.available_bytes
    yield Finding(
        Severity.FAIL if at_once else Severity.WARN,
        "swap-needed",
        "The plan needs swap from the start" if at_once else "The plan's caches would be swapped",
        f"{format_bytes(need.anonymous_bytes)} beside plain weights, of which "
        f"{format_bytes(need.bound_bytes)} are bounds of caches; "
        f"{format_bytes(memory.available_bytes)} of memory can be had, {format_bytes(swap)} of "
        "swap is free",
        "Lower --context or --parallel, take a smaller file, or end other programs.",
    )


def _in_use(host: Host) -> Iterator[Finding]:
    total, free, all_memory, available = (
        host.kilobytes("proc/meminfo", name)
        for name in ("SwapTotal", "SwapFree", "MemTotal", "MemAvailable")
    )
    if not total or free is None or not all_memory or available is None:
        return
    used = total - free
    if used < max(total * MUCH_SHARE, MUCH_BYTES) or _only_compressed(host):
        return
    stalled = _stalled_percent(host)
    short = available < all_memory * SHORT_SHARE
    if not short and (stalled is None or stalled < STALLED_PERCENT):
        return
    waits = "" if stalled is None else f"; programs waited for memory {stalled:.0f} % of a minute"
    yield Finding(
        Severity.WARN,
        "swap-in-use",
        "This host is swapping: it lacks memory before the model is loaded",
        f"{format_bytes(used)} of {format_bytes(total)} of swap used, {format_bytes(available)} of "
        f"{format_bytes(all_memory)} of memory available{waits}",
        "End what takes the memory (ps aux --sort=-rss lists it), or add memory.",
    )


def _only_compressed(host: Host) -> bool:
    """All swap is compressed memory (zram), no disk."""
    names = [line.split()[0] for line in (host.text("proc/swaps") or "").splitlines()[1:] if line]
    return bool(names) and all(name.startswith("/dev/zram") for name in names)


def _stalled_percent(host: Host) -> float | None:
    """`some avg60` of the kernel's pressure figures."""
    text = host.text("proc/pressure/memory") or ""
    found = re.search(r"^some .*\bavg60=(\d{1,3}\.\d{1,3})\b", text, re.MULTILINE | re.ASCII)
    return float(found[1]) if found else None


def _traffic(case: Case) -> str:
    counted = case.host.table("proc/vmstat")
    pages = [counted.get(name, "") for name in ("pswpin", "pswpout")]
    if not all(page.isdecimal() and len(page) < 19 for page in pages):
        return ""
    return f"; {int(pages[0]):,} pages read and {int(pages[1]):,} written since the last start"


CHECK = Check("swap", "memory", "Does the plan live on swap, or does the host already?", run)
