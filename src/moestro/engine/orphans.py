"""No engine outlives its owner: the one place that knows how each system arranges that.

The owner holds the writing end of a pipe and never writes to it after the request. When the owner
dies, however it dies, the system closes that end. Reading the pipe in a thread would be enough if
Python could run at any time, but the engine holds the interpreter while it loads a model, which can
take minutes. So the end of the pipe is turned into a signal whose handler is libc's own `_exit`: no
Python is needed to end. On Linux the kernel kills the child as well when its parent dies.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
OWNER_GONE = 0


def end_with_owner(lifeline: int) -> None:
    """Ends this process as soon as the other end of the pipe `lifeline` is closed.

    Call it after everything that the owner sends through the pipe has been read.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        # Tied to the thread that started us, which for an event loop lives as long as its engines.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    # `_exit` takes the signal's number as exit status; nobody is left to read it.
    libc.signal(signal.SIGIO, ctypes.cast(libc._exit, ctypes.c_void_p))
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    # The owner may have died before the signal was armed.
    watch = select.poll()
    watch.register(lifeline, select.POLLIN)
    if watch.poll(0):
        os._exit(OWNER_GONE)


def wait_for_owner(lifeline: int) -> None:
    """Blocks until the owner has gone, then ends this process; the plain way, as a second guard."""
    while os.read(lifeline, 4096):
        pass
    os._exit(OWNER_GONE)
