"""Child process of `memory_truth`: an engine as moestro starts it, but with its full log.

Usage: python -m bench.planner.memory_child, with one line of JSON on stdin: an engine request and
an `api_key`. The buffers' sizes are in the log only from level 4 on.
"""

from __future__ import annotations

import json
import sys

import xllamacpp

from moestro.engine.child import claim_report_stream, request_from_json
from moestro.engine.llama_cpp.params import server_params

LOG_LEVEL = 4


def main() -> None:
    report = claim_report_stream()
    request = json.loads(sys.stdin.readline())
    params = server_params(
        request_from_json(request), api_key=request["api_key"], accelerated=False
    )
    params.verbosity = LOG_LEVEL
    server = xllamacpp.Server(params)
    report.send("ready", address=server.listening_address)
    sys.stdin.read()  # until the owner is gone


if __name__ == "__main__":
    main()
