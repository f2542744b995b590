"""The guard of a llama-server: starts it, says where it listens, and ends with its owner.

Usage: python -m moestro.engine.llama_server.guard, with one line of JSON on stdin (see `process`).

The server is a program that knows nothing of owners, so this process stands between: it is told to
end and passes that on, and it ends the way the server did, so that the owner can explain it. On
Linux the kernel kills the server with its guard, however that dies; elsewhere a guard that is
killed alone leaves its server behind, which is why owners kill the group of both.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from moestro.engine.child import FAILED_START, ReportStream, claim_report_stream
from moestro.errors import EngineStartFailed

_LOOK_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


def main() -> int:
    report = claim_report_stream()
    lifeline = sys.stdin.fileno()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # the owner died while it wrote
    request = json.loads(line)
    with tempfile.TemporaryDirectory(prefix="moestro-") as folder:
        key = Path(folder, "key")
        key.touch(mode=0o600)
        key.write_text(f"{request['api_key']}\n")
        command = [request["program"], *request["arguments"], "--api-key-file", str(key)]
        try:
            server = _start(command)
        except OSError as error:
            failure = EngineStartFailed(
                f"{request['program']} could not be started: {error.strerror}.",
                hint="moestro engines list shows the engines that are here.",
            )
            report.send("failed", **failure.to_json())
            return FAILED_START
        threading.Thread(target=_end_with_owner, args=(lifeline, server), daemon=True).start()
        _announce(server, report)
        # It has read the key by now, or never will.
    return server.wait()


def server_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Without what llama-server takes as flags: `LLAMA_ARG_…` and others would change what was
    asked for, and `LLAMA_API_KEY` would let in whoever has that. The same may stand in a
    `llama.cpp/config.ini` of the user's."""
    own = {name: value for name, value in inherited.items() if not name.startswith("LLAMA_")}
    return {**own, "XDG_CONFIG_HOME": os.devnull}


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """The server, with SIGTERM passed on to it from its first moment.

    Raises:
        OSError: it cannot be started.
    """
    # Held back until there is somebody to pass it on to.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        env=server_environment(os.environ),
        preexec_fn=bound_to(os.getpid()),
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return server


def bound_to(owner: int) -> Callable[[], None]:
    """What a server's process does before it becomes the server: on Linux it then ends with the
    process `owner` (with its thread that called), however that ends."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def before() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != owner:  # it died before that was arranged
                os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    return before


def _end_with_owner(lifeline: int, server: subprocess.Popen[bytes]) -> None:
    """The owner's end of the pipe is closed when it dies, however it dies."""
    while os.read(lifeline, 4096):
        pass
    server.kill()


def _announce(server: subprocess.Popen[bytes], report: ReportStream) -> None:
    """Reports where the server listens, as soon as it does; nothing if it ends before."""
    while server.poll() is None:
        port = _listening_port(server.pid)
        if port is not None:
            report.send("ready", address=f"http://127.0.0.1:{port}", pid=server.pid)
            return
        time.sleep(_LOOK_SECONDS)


def _listening_port(pid: int) -> int | None:
    """Servers differ in what they print; the system knows what they do."""
    import psutil

    try:
        found = psutil.Process(pid).net_connections(kind="tcp4")
    except psutil.Error:
        return None
    ports = (one.laddr.port for one in found if one.status == psutil.CONN_LISTEN)
    return next(ports, None)


def _end_alike(status: int) -> None:
    """Ends this process as the server ended: with its exit status, or by the same signal."""
    if status >= 0:
        os._exit(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the dump to look at is the server's own
    signal.signal(-status, signal.SIG_DFL) if -status not in _UNCATCHABLE else None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
    os.kill(os.getpid(), -status)


_UNCATCHABLE = (signal.SIGKILL, signal.SIGSTOP)

if __name__ == "__main__":
    _end_alike(main())
