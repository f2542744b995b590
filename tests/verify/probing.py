"""Fingerprints without the child process, which takes longer to start than to read a tiny model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from moestro.engine.child import ReportStream, parse_report
from moestro.engine.llama_cpp import type_traits, weights_probe, weights_probe_child
from moestro.engine.llama_cpp.abi import open_library


def probe_in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone."""

    def run(request: dict[str, Any], _folder: Path, _name: str, _progress: Any) -> dict[str, Any]:
        said = io.StringIO()
        library = type_traits.declare(open_library())
        weights_probe_child.probe(library, request, ReportStream(said))
        report = parse_report(said.getvalue().splitlines()[-1].encode())
        assert report is not None
        return report

    patch.setattr(weights_probe, "_run", run)
