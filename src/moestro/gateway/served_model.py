"""The model as clients see it: its names and its real limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moestro.client.text import valid_text
from moestro.engine import EngineRequest
from moestro.model.splits import parse_split_name

ANY_MODEL = "default"
"""A name that always means the model that runs, for clients that insist on sending one."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`context_length` is what one stream can reach, and `takes` what may be sent ("text", "image",
    …), as the engine says; None, and text, until it has said."""

    name: str
    aliases: tuple[str, ...]
    created: int
    parallel: int
    context_length: int | None = None
    takes: tuple[str, ...] = ("text",)

    @classmethod
    def of(
        cls,
        request: EngineRequest,
        context_length: int | None = None,
        takes: tuple[str, ...] = ("text",),
    ) -> ServedModel:
        split = parse_split_name(request.model.name)
        # Clients must be able to say these names: a file's may hold bytes that are not UTF-8.
        stem = valid_text(split.stem if split is not None else request.model.stem)
        name = valid_text(request.name)
        try:
            created = int(request.model.stat().st_mtime)
        except OSError:
            created = 0  # the engine will say what is wrong with the file, in its own words
        return cls(
            name=name,
            aliases=tuple(alias for alias in dict.fromkeys((stem, ANY_MODEL)) if alias != name),
            created=created,
            parallel=request.settings.parallel,
            context_length=context_length,
            takes=takes,
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
            "input_modalities": list(self.takes),
        }
