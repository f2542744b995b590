"""The model as clients see it: its names and its real limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from moestro.engine import EngineRequest

ANY_MODEL = "default"
"""A name that always means the model that runs, for clients that insist on sending one."""

_SPLIT_PART = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`context_length` is what one stream can reach, as the engine says; None until it has said."""

    name: str
    aliases: tuple[str, ...]
    created: int
    parallel: int
    context_length: int | None = None

    @classmethod
    def of(cls, request: EngineRequest, context_length: int | None = None) -> ServedModel:
        stem = _SPLIT_PART.sub("", request.model.stem)
        try:
            created = int(request.model.stat().st_mtime)
        except OSError:
            created = 0  # the engine will say what is wrong with the file, in its own words
        return cls(
            name=request.name,
            aliases=tuple(
                name for name in dict.fromkeys((stem, ANY_MODEL)) if name != request.name
            ),
            created=created,
            parallel=request.settings.parallel,
            context_length=context_length,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    def answers_to(self, name: str | None) -> bool:
        """A request that names no model means the one that runs."""
        return name is None or name in self.names

    def to_json(self) -> dict[str, Any]:
        """`max_model_len` repeats the context length under the name that clients of vLLM read."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "moestro",
            "aliases": list(self.aliases),
            "context_length": self.context_length,
            "max_model_len": self.context_length,
            "parallel": self.parallel,
        }
