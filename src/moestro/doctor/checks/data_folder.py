"""Can measurements and verdicts be kept?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.hardware.store import data_folder
from moestro.units import MIB, format_bytes

ROOM_BYTES = 64 * MIB
"""The most that one file there may hold."""

_FIX = "Give it another place in MOESTRO_DATA, one that this user may write to and that has room."


def run(case: Case) -> Iterator[Finding]:
    if case.address is None:
        return
    try:
        folder = data_folder().absolute()
    except RuntimeError:  # a user without a home, as containers have them
        yield _unwritable("this user has no home folder")
        return
    there = _nearest(folder)
    if os.path.isfile(there):
        yield _unwritable(f"{there} is not a folder")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield _unwritable(f"{there} may not be written to")
    else:
        room = os.statvfs(there)
        free = room.f_bavail * room.f_frsize
        if free < ROOM_BYTES:
            yield _unwritable(f"{format_bytes(free)} are free under {there}")
        else:
            yield ok(
                "data-folder", "Measurements and verdicts can be kept",
                f"{folder}, {format_bytes(free)} free",
            )  # fmt: skip


def _nearest(path: Path) -> Path:
    """It, or the nearest that is there of those around it."""
    for one in (path, *path.parents):
        try:
            one.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return one
        return one
    return path


def _unwritable(why: str) -> Finding:
    return Finding(
        Severity.WARN,
        "data-folder-unwritable",
        "Measurements and verdicts cannot be kept",
        why,
        _FIX,
    )


CHECK = Check("data-folder", "service", "Can measurements and verdicts be kept?", run)
