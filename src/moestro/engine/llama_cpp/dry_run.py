"""The engine's own opinion of a model file, from its header alone.

`no_alloc` with plain reads makes llama.cpp read metadata and build the tensor list without loading
a byte of weights, so a sparse file that holds only the header does as well as the model itself.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.llama_cpp.child import (
    child_command,
    child_environment,
    failure_of,
    parse_report,
)
from moestro.engine.llama_cpp.reasons import SHOWN_LOG_LINES, explain_exit
from moestro.errors import EngineError, EngineStartFailed


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """Sums over every tensor in the file (MTP included), and shape facts as the engine has them.

    `size_bytes` is tensor data without padding. `layers` counts trunk blocks, `mtp_layers` the
    rest of `block_count`.
    """

    size_bytes: int
    parameters: int
    description: str
    layers: int
    mtp_layers: int
    context_length: int
    embedding_length: int


def engine_counts(model: Path, *, timeout_seconds: float = 60.0) -> EngineCounts:
    """Asks the engine, in a child process, what it sees in `model` (first part of a split file).

    Raises:
        EngineStartFailed: the engine refuses the file, crashes on it, or takes too long.
        EngineMismatch: another engine build is installed.
    """
    try:
        done = subprocess.run(
            child_command("dry_run_child", str(model)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment(os.environ),
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineStartFailed(
            f"The engine did not finish reading {model.name} within {timeout_seconds:g} s.",
            hint="The file's storage may be stuck, or its header claims absurd sizes.",
        ) from error
    for line in done.stdout.splitlines():
        report = parse_report(line)
        event = report.pop("event") if report is not None else None
        if report is not None and event == "counts" and done.returncode == 0:
            return EngineCounts(**report)
        if report is not None and event == "failed":
            raise failure_of(report)
    raise _refusal(model, done)


def _refusal(model: Path, done: subprocess.CompletedProcess[bytes]) -> EngineError:
    log = tuple(done.stderr.decode(errors="replace").splitlines())
    reason = explain_exit(log, done.returncode, model.name)
    log_tail = log[-SHOWN_LOG_LINES:] if reason.log_helps else ()
    return EngineStartFailed(reason.sentence, hint=reason.hint, log_tail=log_tail)
