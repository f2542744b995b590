"""The embedded engine: llama.cpp's own server inside a child process of ours."""

from __future__ import annotations

from pathlib import Path

from moestro.engine.child import child_command
from moestro.engine.process import EngineProcess
from moestro.engine.protocol import EngineRequest


class LlamaCppEngine(EngineProcess):
    def __init__(self, request: EngineRequest, *, log_file: Path | None = None) -> None:
        super().__init__(request, child_command("llama_cpp.worker"), log_file=log_file)
