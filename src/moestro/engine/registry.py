"""Which engines there are on this machine, and what each of them can do.

The engine is a setting like any other: `Settings.engine` holds the id of one of these.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from moestro.engine import architectures as names
from moestro.errors import EngineError, MoestroError, UsageError
from moestro.planning.settings import EMBEDDED, Family, PlannedEngine, Settings

Origin = Literal["embedded", "built", "path", "given"]

MTP = "mtp"
NGRAM = "ngram"
UNIFIED = "unified"
REPACK = "repack"
LOAD_MODE = "load-mode"
EXPERT_CACHE = "expert-cache"
SYNTHETIC_ACCEPTANCE = "synthetic-acceptance"
FEATURES = {
    MTP: "drafts by MTP",
    NGRAM: "drafts from the text",
    UNIFIED: "a cache that all streams share",
    REPACK: "to leave weights as they are",
    LOAD_MODE: "a choice of how the file is loaded",
    EXPERT_CACHE: "a cache for experts on the GPU",
    SYNTHETIC_ACCEPTANCE: "synthetic acceptance of drafts",
}
"""What an engine may be able to do, and what that is called in a sentence; a setting that needs one
of them says so in `needs`."""

PROGRAM = "llama-server"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One engine. `id` is what settings call it: "embedded", the name of a built one, or the path
    of a `llama-server`. `program` is None for the embedded one. `flags` are what it was compiled
    with, as far as that is known. `architectures` are names as in a GGUF's `general.architecture`;
    None where they are not known: then the engine itself has to be asked, with the model.
    `instruction_sets` are those that its processor code was compiled for, by the names of
    `hardware.Cpu.instruction_sets`; empty where they are not known."""

    id: str
    family: Family
    version: str
    origin: Origin
    program: Path | None = None
    flags: tuple[str, ...] = ()
    features: frozenset[str] = frozenset(FEATURES)
    architectures: frozenset[str] | None = None
    devices: tuple[str, ...] = field(default=())
    instruction_sets: tuple[str, ...] = ()

    @property
    def planned(self) -> PlannedEngine:
        """What a plan keeps of it."""
        return PlannedEngine(self.id, self.family, self.version)

    def same_code(self, other: EngineInfo) -> bool:
        """Whether both are known to be one release, compiled for the same processors and no GPU."""
        return (
            (self.family, self._release) == (other.family, other._release)
            and bool(self.instruction_sets)
            and self.instruction_sets == other.instruction_sets
            and not self.devices
            and not other.devices
        )

    @property
    def _release(self) -> str:
        """llama.cpp's release 11549 is b11549; as a Python package it is 2026.10.11549."""
        if self.family != "llama.cpp":
            return self.version
        return self.version.rpartition(".")[2].removeprefix("b")

    def runs(self, architecture: str) -> bool | None:
        """Whether it knows models of that architecture; None where only a try would tell."""
        if self.architectures is None:
            return None
        if architecture in self.architectures:
            return True
        # A name that nobody here has heard of was not looked for in the binary.
        return False if architecture in names.KNOWN else None

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
            "instruction_sets": list(self.instruction_sets),
        }


def needs(settings: Settings) -> frozenset[str]:
    """The features without which an engine cannot do what `settings` say.

    To be allowed to repack is no need, not to be allowed is one.
    """
    wanted = {
        MTP: settings.mtp_depth > 0,
        NGRAM: settings.ngram != "off",
        UNIFIED: settings.unified and settings.parallel > 1,
        REPACK: not settings.repack,
        LOAD_MODE: settings.load_mode != "auto",
        EXPERT_CACHE: settings.expert_cache_bytes > 0,
    }
    return frozenset(name for name, wants in wanted.items() if wants)


def embedded() -> EngineInfo:
    """The engine that comes with moestro. Its devices are not asked for here: see
    `engine.llama_cpp.devices`.

    Raises:
        EngineMismatch: it is not installed.
    """
    from moestro.engine.llama_cpp.version import installed_version

    return EngineInfo(
        id=EMBEDDED,
        family="llama.cpp",
        version=installed_version(),
        origin="embedded",
        architectures=names.EMBEDDED,
    )


def asked(info: EngineInfo) -> EngineInfo:
    """The embedded engine with what only itself can tell: half a second.

    Raises:
        EngineError: it cannot be used.
    """
    from moestro.engine.llama_cpp.facts import engine_facts

    return replace(info, instruction_sets=engine_facts().instruction_sets)


def engines() -> tuple[EngineInfo, ...]:
    """Every engine that is here: the embedded one, those that were built, and the `llama-server` on
    the PATH. One that cannot be used is left out."""
    from moestro.engine.build.record import built_engines

    found: list[EngineInfo] = []
    with contextlib.suppress(EngineError):  # the doctor says so
        found.append(embedded())
    built = built_engines()
    found += built
    on_path = _on_path({info.program for info in built})
    return (*found, *([on_path] if on_path is not None else ()))


def engine_named(name: str) -> EngineInfo:
    """The engine that `name` means: an id, or the path of a `llama-server`.

    Raises:
        UsageError: there is none of that name.
        EngineError: the file is no llama-server, or the embedded engine is not installed.
    """
    if name == EMBEDDED:
        return embedded()
    if os.sep in name or name.startswith("~"):
        from moestro.engine.llama_server.probe import probe

        return probe(Path(name).expanduser())
    from moestro.engine.build.record import built_engines

    built = built_engines()
    for info in built:
        if info.id == name:
            return info
    if name == PROGRAM and (path := shutil.which(PROGRAM)) is not None:
        from moestro.engine.llama_server.probe import probe

        return probe(Path(path), origin="path")
    raise _nobody(name, (EMBEDDED, *(info.id for info in built)))


def _on_path(known: set[Path | None]) -> EngineInfo | None:
    from moestro.engine.llama_server.probe import probe

    path = shutil.which(PROGRAM)
    if path is None or any(one is not None and _same(one, Path(path)) for one in known):
        return None
    try:
        return probe(Path(path), origin="path")
    except MoestroError:  # another program of that name
        return None


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _nobody(name: str, there: tuple[str, ...]) -> UsageError:
    near = get_close_matches(name, there, n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return UsageError(
        f"There is no engine {name}.",
        hint=f"{meant}Here are: {', '.join(there)}. The path of a llama-server is one too "
        f"(./{name} if it lies in this folder).",
        code="no-such-engine",
    )


__all__ = [
    "EMBEDDED",
    "FEATURES",
    "EngineInfo",
    "Family",
    "Origin",
    "embedded",
    "engine_named",
    "engines",
    "needs",
]
