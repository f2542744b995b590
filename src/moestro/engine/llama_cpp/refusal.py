"""What a child process of the engine answers, and why it ended: its log and status as an error."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from typing import IO, Any

from moestro.engine.child import FAILED_START, failure_of, parse_report
from moestro.engine.reasons import SHOWN_LOG_LINES, explain_exit
from moestro.errors import EngineError, EngineStartFailed

UNAVAILABLE = "engine-unavailable"
"""The code of errors that say nothing of the model: no memory, no process, ended from outside."""

_LOG_BYTES = 256 * 1024


def send(process: subprocess.Popen[bytes], question: dict[str, Any]) -> None:
    """One line for the child. One that is gone is found when its answer is read."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()


def answered(
    process: subprocess.Popen[bytes], line: bytes, refused: Callable[[int], EngineError]
) -> dict[str, Any]:
    """The report in the `line` that the child answered, which is empty if it has ended.

    Raises:
        EngineError: what it reports to have failed of; what `refused` makes of its exit status
            where it ended or the engine refuses.
    """
    report = parse_report(line) if line else None
    if report is None:
        raise refused(process.wait())
    if report["event"] == "failed":
        raise failure_of(report)
    if report["event"] == "refused":
        raise refused(FAILED_START)
    return report


def end_of(log: IO[bytes]) -> tuple[str, ...]:
    """The last lines of a log file that is open."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_BYTES))
    return lines_of(log.read())


def lines_of(log: bytes) -> tuple[str, ...]:
    return tuple(log.decode(errors="replace").splitlines())


def refusal(lines: Sequence[str], exit_code: int | None, name: str) -> EngineStartFailed:
    """`name` is the model file's. The code is `UNAVAILABLE` where the model is not to blame."""
    reason = explain_exit(lines, exit_code, name)
    return EngineStartFailed(
        reason.sentence,
        hint=reason.hint,
        code=UNAVAILABLE if reason.outside else None,
        log_tail=tuple(lines[-SHOWN_LOG_LINES:]) if reason.log_helps else (),
    )
