"""Why a child process of the engine ended, as an error: its log and exit status, read once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

from moestro.engine.llama_cpp.reasons import SHOWN_LOG_LINES, explain_exit
from moestro.errors import EngineStartFailed

UNAVAILABLE = "engine-unavailable"
"""The code of errors that say nothing of the model: no memory, no process, ended from outside."""

_LOG_BYTES = 256 * 1024


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
