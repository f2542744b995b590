"""The one place that runs a vendor's tool: it may be absent, hang, lie or crash."""

from __future__ import annotations

import subprocess

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
