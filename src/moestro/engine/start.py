"""From a request to the engine that its settings name."""

from __future__ import annotations

from pathlib import Path

from moestro.engine.process import EngineProcess
from moestro.engine.protocol import EngineRequest
from moestro.planning.settings import EMBEDDED


def make_engine(request: EngineRequest, *, log_file: Path | None = None) -> EngineProcess:
    """An engine of the kind that `request.settings.engine` names, not started yet.

    Raises:
        UsageError: there is no such engine.
        EngineError: it cannot be used, or cannot do what the settings say.
    """
    if request.settings.engine == EMBEDDED:
        from moestro.engine.llama_cpp.engine import LlamaCppEngine

        return LlamaCppEngine(request, log_file=log_file)
    from moestro.engine.llama_server.engine import LlamaServerEngine
    from moestro.engine.registry import engine_named

    return LlamaServerEngine(request, engine_named(request.settings.engine), log_file=log_file)
