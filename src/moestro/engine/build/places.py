"""Where compiled engines are kept: one folder each, under the data folder.

engines/llama.cpp-b11549/         llama-server, engine.json, build.log
engines/.work/llama.cpp-b11549/   source, objects and log of a build that is not done yet
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moestro.engine.registry import Family
from moestro.errors import EngineError, UsageError
from moestro.hardware.store import data_folder

FAMILIES: tuple[Family, ...] = ("llama.cpp", "ik_llama.cpp")
PROGRAM = "llama-server"
RECORD = "engine.json"
LOG = "build.log"
_ID = re.compile(r"(?:ik_)?llama\.cpp-[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


def engines_folder() -> Path:
    return data_folder() / "engines"


def engine_folder(engine_id: str) -> Path:
    """The folder of one engine, whether or not it exists.

    Raises:
        UsageError: no engine that is built here could have that name.
    """
    if not is_engine_id(engine_id):
        raise UsageError(
            f"“{engine_id[:60]}” is not the name of an engine that was built here.",
            hint="moestro engines list shows their names.",
        )
    return engines_folder() / engine_id


def work_folder(engine_id: str) -> Path:
    """Where that engine is made."""
    return engines_folder() / ".work" / engine_folder(engine_id).name


def is_engine_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def engine_id(family: Family, version: str, *, cuda: bool) -> str:
    """`llama.cpp-b11549`, `ik_llama.cpp-0.1.5`, `llama.cpp-b11549-cuda`."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", version).strip("-._")[:48] or "unknown"
    return f"{family}-{plain}{'-cuda' if cuda else ''}"


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Holds `folder` (it is made if need be) for this process and for those that inherit the file
    descriptor: a compiler that outlives us goes on holding it.

    Raises:
        EngineError: another build holds it, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise not_writable(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EngineError(
                f"{folder.name} is being built by another process.",
                hint="Wait for it, or end it first.",
                code="engine-being-built",
            ) from error
        yield handle
    finally:
        os.close(handle)


def not_writable(folder: Path, error: OSError) -> EngineError:
    reason = error.strerror or type(error).__name__
    return EngineError(
        f"{folder} cannot be written to: {reason}.",
        hint="Make room, or choose another place with MOESTRO_DATA.",
        code="engine-folder",
    )
