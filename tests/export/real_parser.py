"""The engine's own parser of command lines, and its own idea of a request, side by side.

Run as a child: `python -m tests.export.real_parser` with one line of JSON on stdin, a list of
`{"arguments", "environment", "request", "accelerated"}`. Prints for each every parameter that has
a value to compare: what the parser made of the arguments, and what the embedded engine sets.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from moestro.engine.child import request_from_json, request_to_json
from moestro.engine.protocol import EngineRequest
from moestro.export.deployment import Deployment

PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
SERVER = 12
"""`LLAMA_EXAMPLE_SERVER`."""

HEADER_BYTES = 16
"""Of a Python object; the engine's struct is its first member after that."""

UNTOLD = ("lora", "control_vectors", "default_template_kwargs")
PARTS = ("cpuparams", "cpuparams_batch", "model", "mmproj", "speculative", "speculative.draft")


def side_by_side(cases: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(parsed, embedded) of each case."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.export.real_parser"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**clean, "XDG_CONFIG_HOME": os.devnull},  # the user may have a config.ini there
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [(one["parsed"], one["embedded"]) for one in json.loads(done.stdout.splitlines()[-1])]


def case_of(
    deployment: Deployment, arguments: list[str], environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `side_by_side` takes."""
    request = EngineRequest(Path(deployment.model_path), deployment.name, deployment.settings)
    return {
        "arguments": arguments,
        "environment": environment or {},
        "request": request_to_json(request),
        "accelerated": deployment.gpus > 0,
    }


def parse(library: ctypes.CDLL, arguments: list[str]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    _check_layout(params)
    words = [b"llama-server", *(word.encode() for word in arguments)]
    argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    function = getattr(library, PARSE)
    function.restype = ctypes.c_bool
    there = ctypes.c_void_p(id(params) + HEADER_BYTES)
    if not function(len(words), argv, there, SERVER, None):
        raise SystemExit(f"the parser refused {arguments}")
    return params


def _check_layout(params: Any) -> None:
    """The struct must lie where it is looked for: its first numbers are known."""
    params.n_predict, params.n_ctx, params.n_batch, params.n_ubatch = 11, 22, 33, 44
    begin = (ctypes.c_int32 * 4).from_address(id(params) + HEADER_BYTES)
    assert list(begin) == [11, 22, 33, 44], "the engine's parameters lie elsewhere"
    params.n_predict, params.n_ctx, params.n_batch, params.n_ubatch = -1, 0, 2048, 512


def told(params: Any) -> dict[str, Any]:
    """Every parameter with a plain value, by name."""
    found: dict[str, Any] = {}
    for prefix in ("", *PARTS):
        part = params
        for name in filter(None, prefix.split(".")):
            part = getattr(part, name)
        for name in dir(part):
            value = None if name.startswith(("_", *UNTOLD)) else getattr(part, name)
            plain = _plain(value)
            if plain is not None:
                found[f"{prefix}.{name}".lstrip(".")] = plain
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value if type(value) in (bool, int, float, str) else str(value)
    if isinstance(value, (list, tuple, set)):
        items = [_plain(item) for item in value]
        return None if None in items else items
    return None


def main() -> None:
    from moestro.engine.llama_cpp.binding import load_library
    from moestro.engine.llama_cpp.params import server_params

    library, answers = load_library(), []
    for case in json.loads(sys.stdin.readline()):
        embedded = server_params(
            request_from_json(case["request"]), api_key="k", accelerated=case["accelerated"]
        )
        os.environ.update(case["environment"])
        parsed = parse(library, case["arguments"])
        for name in case["environment"]:
            del os.environ[name]
        answers.append({"parsed": told(parsed), "embedded": told(embedded)})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
