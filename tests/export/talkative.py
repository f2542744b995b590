"""The embedded engine, as `worker` starts it, but saying everything.

Run as a child: `python -m tests.export.talkative` with a request as one line of JSON on stdin. The
engine's log goes to stderr, its answers to `/props` and `/slots` to stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from moestro.engine.child import request_from_json, request_to_json
from moestro.engine.protocol import EngineRequest
from tests.export.reported import reported

_EVERYTHING = 5
_KEY = "k"


def reports_of(request: EngineRequest) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.export.talkative"],
        input=json.dumps(request_to_json(request)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    props, slots = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    return reported(done.stderr + done.stdout, props, slots)


def main() -> None:
    import xllamacpp

    from moestro.engine.llama_cpp.params import server_params

    request = request_from_json(json.loads(sys.stdin.readline()))
    params = server_params(request, api_key=_KEY, accelerated=False)
    params.verbosity = _EVERYTHING
    server = xllamacpp.Server(params)
    answers = [_ask(server.listening_address, path) for path in ("/props", "/slots")]
    print("", *(json.dumps(answer) for answer in answers), sep="\n", flush=True)
    os._exit(0)  # nothing is to be saved, and an orderly end takes longer than the test


def _ask(address: str, path: str) -> Any:
    headers = {"Authorization": f"Bearer {_KEY}"}
    asked = urllib.request.Request(f"{address}{path}", headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
