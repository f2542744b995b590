"""How is a model run? One protocol; one package per engine."""

from moestro.engine.protocol import Engine, EngineExit, EngineRequest, EngineState

__all__ = ["Engine", "EngineExit", "EngineRequest", "EngineState"]
