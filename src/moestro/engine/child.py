"""What parent and child of an engine process agree on: command, environment, reports.

A child reads one line of JSON on stdin and then keeps stdin open as its lifeline (see `orphans`).
Its stdout carries reports, one JSON object a line; everything else goes to stderr, the log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from moestro.engine.protocol import EngineRequest
from moestro.errors import EngineError, EngineMismatch, EngineStartFailed

FAILED_START = 3
"""Exit status of a child whose engine refused the model; the reason is in its log."""

_DEFAULTS = {
    # A failed assertion would start a debugger for a backtrace: seconds, and another process.
    "GGML_NO_BACKTRACE": "1",
    # Huge pages for what is allocated in one piece, as weights are that were repacked or read: each
    # token walks through all of them, and small pages need more entries than a processor keeps.
    # 7 % of a chat's tokens for ik_llama.cpp, 3 % for llama.cpp; 2 to 4 % more memory on models of
    # 0.1 to 0.7 GB (docs/lab-log.md). Without glibc 2.35 or such pages nothing happens.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

SPIN = "3000000"
"""How often a thread looks whether the others have come before it sleeps (`GOMP_SPINCOUNT`), about
a tenth of a second. The engine's threads meet at a barrier after every operation, hundreds of times
a token. Where other guests of the host want the processors, a thread that slept is late by
milliseconds each time: with 1000, chats had a quarter of these tokens (`bench.tune.spin`,
docs/concepts/engine.md). An engine that nobody asks does not spin."""

SHORT_SPIN = "1000"
"""For an engine that computes while another one does: where two spin on the same cores, each keeps
the other's threads from arriving."""


def child_command(module: str, *arguments: str) -> list[str]:
    """Runs a module of this room with this interpreter, not shadowed by files in the cwd."""
    return [sys.executable, "-P", "-m", f"moestro.engine.{module}", *arguments]


def child_environment(
    inherited: Mapping[str, str], *, beside_another: bool = False
) -> dict[str, str]:
    """The user's environment wins over every default here. `beside_another`: another engine
    computes at the same time."""
    spin = SHORT_SPIN if beside_another else SPIN
    return {**_DEFAULTS, "GOMP_SPINCOUNT": spin, **inherited}


def request_to_json(request: EngineRequest) -> dict[str, Any]:
    return {
        "model": str(request.model),
        "name": request.name,
        "settings": request.settings.to_json(),
        "projector": str(request.projector) if request.projector else None,
        "synthetic_acceptance": list(request.synthetic_acceptance),
        "verbose": request.verbose,
        "embeddings": request.embeddings,
        "thinking": request.thinking,
    }


def request_from_json(data: Mapping[str, Any]) -> EngineRequest:
    # Not every child plans to run a model, and this import takes longer than its whole start.
    from moestro.planning.settings import Settings

    return EngineRequest(
        model=Path(data["model"]),
        name=data["name"],
        settings=Settings.from_json(data["settings"]),
        projector=Path(data["projector"]) if data["projector"] else None,
        synthetic_acceptance=tuple(data["synthetic_acceptance"]),
        verbose=data["verbose"],
        embeddings=data["embeddings"],
        thinking=data["thinking"],
    )


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
    sys.stdout.flush()
    reports = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return ReportStream(os.fdopen(reports, "w", encoding="utf-8"))


def parse_report(line: bytes) -> dict[str, Any] | None:
    """A report line, or None if it is not one (a child may die in the middle of a line)."""
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "event" in report else None


def failure_of(report: Mapping[str, Any]) -> EngineError:
    """The error that a child's `failed` report stands for: `MoestroError.to_json` in reverse."""
    kind = EngineMismatch if report.get("code") == EngineMismatch.code else EngineStartFailed
    return kind(str(report["message"]), hint=report.get("hint"))
