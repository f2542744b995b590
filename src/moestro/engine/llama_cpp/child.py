"""What every engine child process does: one stream for reports, everything else to the log."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any, TextIO

FAILED_START = 3
"""Exit status of a child whose engine refused the model; its reason is in the log."""


@dataclass(frozen=True, slots=True)
class ReportStream:
    """JSON lines from a child to its parent: `{"event": …, …}`."""

    stream: TextIO

    def send(self, event: str, /, **fields: Any) -> None:
        self.stream.write(json.dumps({"event": event, **fields}) + "\n")
        self.stream.flush()


def claim_report_stream() -> ReportStream:
    """Keeps the real stdout for reports and sends what the engine prints there to stderr.

    llama.cpp writes to both streams; a stray line between two reports would break the protocol.
    """
    reports = os.dup(sys.stdout.fileno())
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return ReportStream(os.fdopen(reports, "w", encoding="utf-8"))


def parse_report(line: bytes) -> dict[str, Any] | None:
    """A report line, or None if it is not one (a child may die in the middle of a line)."""
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "event" in report else None
