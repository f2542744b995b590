"""Which engines there are on this machine, and what each of them can do.

The engine is a setting like any other: `Settings.engine` holds the id of one of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moestro.planning.settings import EMBEDDED

Family = Literal["llama.cpp", "ik_llama.cpp"]
Origin = Literal["embedded", "built", "path", "given"]

MTP = "mtp"
NGRAM = "ngram"
UNIFIED = "unified"
REPACK = "repack"
LOAD_MODE = "load-mode"
EXPERT_CACHE = "expert-cache"
SYNTHETIC_ACCEPTANCE = "synthetic-acceptance"
FEATURES = (MTP, NGRAM, UNIFIED, REPACK, LOAD_MODE, EXPERT_CACHE, SYNTHETIC_ACCEPTANCE)
"""What an engine may be able to do; a setting that needs one of them says so in `needs`."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One engine. `id` is what settings call it: "embedded", the name of a built one, or the path
    of a `llama-server`. `program` is None for the embedded one. `flags` are what it was compiled
    with, as far as that is known. `architectures` are names as in a GGUF's `general.architecture`;
    None where they are not known: then the engine itself has to be asked, with the model."""

    id: str
    family: Family
    version: str
    origin: Origin
    program: Path | None = None
    flags: tuple[str, ...] = ()
    features: frozenset[str] = frozenset(FEATURES)
    architectures: frozenset[str] | None = None
    devices: tuple[str, ...] = field(default=())

    def runs(self, architecture: str) -> bool | None:
        """Whether it knows models of that architecture; None where only a try would tell."""
        return None if self.architectures is None else architecture in self.architectures

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "family": self.family,
            "version": self.version,
            "origin": self.origin,
            "program": str(self.program) if self.program is not None else None,
            "flags": list(self.flags),
            "features": sorted(self.features),
            "architectures": None if self.architectures is None else sorted(self.architectures),
            "devices": list(self.devices),
        }


__all__ = ["EMBEDDED", "FEATURES", "EngineInfo", "Family", "Origin"]
