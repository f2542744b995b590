"""Runs inside a peer's environment: questions as JSON on stdin, answers as JSON on stdout.

python ask.py adapters/NAME.py < questions.json
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from typing import Any


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("adapter", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(adapter: Any, question: dict[str, Any]) -> dict[str, Any]:
    """A peer that fails answers with its reason: its own words, one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # peers print while they think
            return dict(adapter.answer(question))
    except (Exception, SystemExit) as error:  # noqa: BLE001  every failure is an answer here
        words = " ".join(str(error).split())[:300]
        return {"failed": f"{type(error).__name__}: {words}" if words else type(error).__name__}


def main() -> None:
    adapter = load(sys.argv[1])
    answers = [ask(adapter, question) for question in json.load(sys.stdin)]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
