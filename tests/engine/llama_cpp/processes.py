"""Watching processes that are not our children any more."""

from __future__ import annotations

import time

import psutil


def is_running(pid: int) -> bool:
    """A zombie has ended; only nobody has asked for its exit status yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
