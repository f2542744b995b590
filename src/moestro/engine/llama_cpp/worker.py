"""The engine process: hosts llama.cpp's own server until its owner is gone.

Usage: python -m moestro.engine.llama_cpp.worker, with one line of JSON on stdin (see `process`).

SIGTERM keeps its default action: there is nothing to save, and Python could not run a handler
while the engine holds the interpreter.
"""

from __future__ import annotations

import ctypes
import json
import sys

from moestro.engine.child import (
    FAILED_START,
    ReportStream,
    claim_report_stream,
    request_from_json,
)
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.binding import flush_log
from moestro.engine.orphans import end_with_owner, wait_for_owner
from moestro.errors import EngineError, EngineStartFailed

_GPU_DEVICE_TYPES = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU; BLAS is no device of this kind


def main() -> int:
    report = claim_report_stream()
    lifeline = sys.stdin.fileno()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # the owner died while it wrote
    end_with_owner(lifeline)
    try:
        return _serve(json.loads(line), report, lifeline)
    except EngineError as error:
        report.send("failed", **error.to_json())
        return FAILED_START


def _serve(request: dict[str, object], report: ReportStream, lifeline: int) -> int:
    library = open_library()
    # Only after that check: another build may already fail here.
    import xllamacpp

    from moestro.engine.llama_cpp.params import server_params

    try:
        params = server_params(
            request_from_json(request),
            api_key=str(request["api_key"]),
            accelerated=_has_accelerator(library),
        )
    except (OverflowError, TypeError, ValueError) as error:
        # `server_params` names what it knows to be out of bounds; this is for the rest.
        raise EngineStartFailed(
            f"The engine does not take these settings: {error}.",
            hint="Try the defaults, then change one setting at a time.",
        ) from error
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        # The exception only says "check the input params"; the log has the reason.
        flush_log(library)
        return FAILED_START
    report.send("ready", address=server.listening_address)
    wait_for_owner(lifeline)
    return 0


def _has_accelerator(library: ctypes.CDLL) -> bool:
    devices = range(library.ggml_backend_dev_count())
    return any(
        library.ggml_backend_dev_type(library.ggml_backend_dev_get(index)) in _GPU_DEVICE_TYPES
        for index in devices
    )


if __name__ == "__main__":
    sys.exit(main())
