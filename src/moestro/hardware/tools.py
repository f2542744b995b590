"""The one place that asks outside: vendors' tools, which may be absent, hang, lie or crash, and the
kernel's files, which may not be there."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT_SECONDS = 10.0


def run_tool(*command: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> str | None:
    """What the tool printed, or None if it is absent, failed or did not finish in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def read_text(path: Path, *, most_bytes: int = 1 << 20) -> str:
    """The file's text, empty where there is none or it may not be read."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes).decode(errors="replace")
    except OSError:
        return ""
