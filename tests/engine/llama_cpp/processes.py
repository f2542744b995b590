"""Watching processes that are not our children any more."""

from __future__ import annotations

import os
import signal
import time

import psutil


def is_running(pid: int) -> bool:
    """A zombie has ended; only nobody has asked for its exit status yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pause(pid: int) -> None:
    """Returns when all threads of this child have stopped: until then, one of them may answer."""
    os.kill(pid, signal.SIGSTOP)
    while not all(_is_stopped(pid, thread.id) for thread in psutil.Process(pid).threads()):
        time.sleep(0.005)


def _is_stopped(pid: int, thread: int) -> bool:
    """Elsewhere than on Linux a thread cannot be asked; there the process speaks for all."""
    of = thread if psutil.LINUX else pid
    return bool(psutil.Process(of).status() == psutil.STATUS_STOPPED)


def ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
