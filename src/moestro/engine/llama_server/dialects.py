"""Settings → flags, for each family of servers. A new one is a module with these two functions."""

from __future__ import annotations

from typing import Protocol

from moestro.engine.llama_server import ik_llama_cpp, llama_cpp
from moestro.engine.llama_server.flags import Asked, Flag
from moestro.planning.settings import Family


class Dialect(Protocol):
    def setting_flags(self, asked: Asked) -> tuple[Flag, ...]:
        """Everything that settings decide, in the order in which people read it.

        Raises:
            EngineStartFailed: a setting that this family cannot do, or a number it cannot count.
        """

    def serving_flags(self, host: str, port: int) -> tuple[Flag, ...]:
        """How it answers, and where."""


DIALECTS: dict[Family, Dialect] = {"llama.cpp": llama_cpp, "ik_llama.cpp": ik_llama_cpp}
