"""Main memory: is it as fast as its channels allow, and are all of them in use?

Decoding a mixture of experts reads weights from memory and does little else, so that half the
channels are half the speed. What modules sit in which slots stands in the SMBIOS tables, for root
alone; udev keeps a copy for everybody, and a measured bandwidth tells as much where the peak is
known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.doctor.virtual import is_virtual
from moestro.findings import Finding, Severity
from moestro.hardware.bandwidth import CHANNEL_BYTES
from moestro.hardware.smbios import PLUGGED, Modules, parse_smbios, parse_udev
from moestro.units import format_bandwidth

_TABLE = "sys/firmware/dmi/tables/DMI"
_UDEV = "run/udev/data/+dmi:id"
_LOW = 0.5
"""Of the peak. Programs reach 75 to 90 % with all cores; what is below half has a cause."""

_BELOW_RATED, _FAR_BELOW_RATED = 0.95, 0.8
_ONE_CHANNEL_AT_MOST = 51.2e9
"""DDR5-6400: what is measured above that comes from more than one channel."""


def _run(case: Case) -> Iterator[Finding]:
    if case.inventory.memory.unified or case.host.system != "Linux":
        return
    virtual = is_virtual(case.host)
    modules = Modules(()) if virtual else _modules(case.host)
    troubles = [*_channels(modules), *_rated(modules)]
    yield from troubles
    yield from _reached(case, modules, virtual=virtual, well=not troubles)


def _modules(host: Host) -> Modules:
    data = host.data(_TABLE)
    found = parse_smbios(data) if data is not None else Modules(())
    return found if found.slots else parse_udev(host.text(_UDEV) or "")


def _channels(modules: Modules) -> Iterator[Finding]:
    populated = modules.populated
    if not populated or not _plugged(modules):
        return
    used, board = modules.channels() or (1 if len(populated) == 1 else None, None)
    if used is None or (board is None and len(modules.slots) < 2) or used == board:
        return
    one, all_of_them = modules.peak(used), modules.peak(board or 2)
    seats = ", ".join(slot.locator or slot.bank or "?" for slot in populated)
    evidence = (
        f"{len(populated)} of {len(modules.slots)} slots ({seats}): at most "
        f"{format_bandwidth(one)}, with {board or 'two'} channels {format_bandwidth(all_of_them)}"
    )
    if used == 1:
        yield Finding(
            Severity.WARN,
            "single-channel-memory",
            "All memory sits on one channel: experts in host memory run at a part of the speed",
            evidence,
            "Put equal modules into one slot of each channel; the board's manual names them "
            "(mostly A2 and B2).",
        )
    elif board is not None:
        yield Finding(
            Severity.WARN if 2 * used <= board else Severity.INFO,
            "memory-channels-empty",
            f"Modules sit on {used} of {board} memory channels",
            evidence,
            "Put an equal module into one slot of each channel; the board's manual names them.",
        )


def _plugged(modules: Modules) -> bool:
    """Whether a slot is what this page takes it for: the place of a module with one channel."""
    return all(slot.kind in PLUGGED for slot in modules.populated)


def _rated(modules: Modules) -> Iterator[Finding]:
    """All modules run at the pace of the slowest. Profiles beyond the standard may show a rated
    speed below the configured one: no trouble."""
    rated = min((slot.rated for slot in modules.populated if slot.rated), default=None)
    runs = min((slot.configured for slot in modules.populated if slot.configured), default=None)
    if rated is None or runs is None or runs >= _BELOW_RATED * rated:
        return
    yield Finding(
        Severity.WARN if runs < _FAR_BELOW_RATED * rated else Severity.INFO,
        "memory-below-rated",
        "Memory runs below the speed that its modules are made for",
        f"{runs} of {rated} MT/s, {100 * runs / rated:.0f} %",
        "Choose the modules' profile (XMP or EXPO) in the firmware; four modules where two would "
        "do, or a processor that is made for less, keep it low.",
    )


def _reached(case: Case, modules: Modules, *, virtual: bool, well: bool) -> Iterator[Finding]:
    memory = case.inventory.memory
    measured = memory.bandwidth
    if measured is not None and measured.source != "measured":
        measured = None
    counted = modules.channels() if _plugged(modules) else None
    channels = counted[0] if counted is not None else memory.channels
    speed = modules.megatransfers or _speed(memory.kind)
    peak = channels * speed * 1e6 * CHANNEL_BYTES if channels and speed else None
    one_channel = speed * 1e6 * CHANNEL_BYTES if speed else _ONE_CHANNEL_AT_MOST
    low = measured is not None and peak is not None and measured.bytes_per_second < _LOW * peak
    # A part of the cores does not fill all channels, and nothing is wrong with that.
    few = case.inventory.cpu.usable_cores < (case.inventory.cpu.physical_cores or 1)
    if measured is not None and low and not few:
        yield Finding(
            Severity.WARN,
            "memory-bandwidth-low",
            "Main memory is read at less than half of what its channels give",
            f"{format_bandwidth(measured.bytes_per_second)} measured, {channels} channels at "
            f"{speed} MT/s give {format_bandwidth(peak)}",
            "Measure again while nothing else runs (moestro hardware --measure); if it stays, look "
            "for memory on one channel, a low speed in the firmware, or few cores in use.",
        )
    elif not well:
        return
    elif peak is not None and measured is not None and not low:
        yield ok(
            "memory-channels", "Main memory is as fast as its channels",
            f"{format_bandwidth(measured.bytes_per_second)} measured of {format_bandwidth(peak)}",
        )  # fmt: skip
    elif counted is not None:
        yield ok("memory-channels", f"All {counted[1]} memory channels have modules",
                 f"{format_bandwidth(peak)} at most")  # fmt: skip
    elif measured and (virtual or measured.bytes_per_second > one_channel):
        above = "" if virtual else f", more than one channel's {format_bandwidth(one_channel)}"
        yield ok("memory-channels", "Main memory was measured",
                 f"{format_bandwidth(measured.bytes_per_second)}{above}")  # fmt: skip
    elif not virtual:
        yield _unknown(case, None if measured is None else measured.bytes_per_second)


def _speed(kind: str | None) -> int | None:
    """10**6 transfers per second, out of `DDR5-5600`."""
    found = re.search(r"-(\d{3,5})$", kind or "", re.ASCII)
    return int(found[1]) if found else None


def _unknown(case: Case, measured: float | None) -> Finding:
    evidence = None if measured is None else f"{format_bandwidth(measured)} measured"
    if case.host.refused(_TABLE):
        fix = 'The table of the modules is for root: sudo "$(command -v moestro)" doctor reads it.'
    else:
        fix = "Nothing here tells of modules: look at the board, or run this outside the container."
    if measured is None:
        fix += " Or measure it: moestro hardware --measure"
    return Finding(
        Severity.UNKNOWN,
        "memory-channels-unknown",
        "Whether memory uses all its channels is unknown",
        evidence,
        fix,
    )


CHECK = Check(
    "memory-channels", "machine", "Does main memory use all its channels?", _run, quick=True
)
