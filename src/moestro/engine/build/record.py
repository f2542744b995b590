"""What is known of an engine that was built here, kept beside its program as `engine.json`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from moestro import __version__
from moestro.engine.build.places import (
    FAMILIES,
    LOG,
    PROGRAM,
    RECORD,
    engine_folder,
    engines_folder,
    is_engine_id,
    not_writable,
    work_folder,
)
from moestro.engine.registry import FEATURES, EngineInfo, Family
from moestro.errors import EngineError
from moestro.findings import Finding, Severity

_FORM = 1
_MOST_BYTES = 1 << 20
_MOST_NAMES = 4096


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One engine that was built here. `flags` are the options that CMake was given,
    `instruction_sets` what the program itself says that it was compiled for, by the names of
    `hardware.Cpu.instruction_sets`. `source` is where the source came from, `source_hash` the
    SHA-256 of its files. `commit` is None where nothing tells. `seconds` is what the build took,
    or its last part where it was stopped before."""

    id: str
    family: Family
    version: str
    commit: str | None
    source: str
    source_hash: str
    flags: tuple[str, ...]
    compiler: str
    instruction_sets: tuple[str, ...]
    features: frozenset[str]
    architectures: frozenset[str]
    devices: tuple[str, ...]
    built_at: datetime
    seconds: float

    @property
    def program(self) -> Path:
        return engine_folder(self.id) / PROGRAM

    def info(self) -> EngineInfo:
        return EngineInfo(
            id=self.id,
            family=self.family,
            version=self.version,
            origin="built",
            program=self.program,
            flags=self.flags,
            features=self.features,
            architectures=self.architectures,
            devices=self.devices,
            instruction_sets=self.instruction_sets,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "form": _FORM,
            "moestro": __version__,
            "id": self.id,
            "family": self.family,
            "version": self.version,
            "commit": self.commit,
            "source": self.source,
            "source_hash": self.source_hash,
            "flags": list(self.flags),
            "compiler": self.compiler,
            "instruction_sets": list(self.instruction_sets),
            "features": sorted(self.features),
            "architectures": sorted(self.architectures),
            "devices": list(self.devices),
            "built_at": self.built_at.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
        }


def built_engines() -> tuple[EngineInfo, ...]:
    """The engines that were built here and whose records can be read, in the order of names."""
    return tuple(record.info() for record in read_records()[0])


def read_records() -> tuple[tuple[BuildRecord, ...], tuple[Finding, ...]]:
    """Every engine that was built here; a finding for each that cannot be used."""
    records, findings = [], []
    try:
        folders = sorted(path for path in engines_folder().iterdir() if is_engine_id(path.name))
    except OSError:
        folders = []
    for folder in folders:
        found = _read(folder)
        if isinstance(found, BuildRecord):
            records.append(found)
        else:
            findings.append(_damaged(folder, found))
    return tuple(records), tuple(findings)


def install(record: BuildRecord, program: Path, log: Path | None = None) -> Path:
    """Moves nothing: copies `program` to the engine's final place with its record, whole or not at
    all. An engine of that name that is there already is replaced. Returns the program's new path.

    Raises:
        EngineError: the folder cannot be written to.
    """
    target = engine_folder(record.id)
    try:
        engines_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=engines_folder()) as name:
            made = Path(name) / record.id
            made.mkdir()
            shutil.copy2(program, made / PROGRAM)
            (made / PROGRAM).chmod(0o755)
            if log is not None and log.exists():
                shutil.copy2(log, made / LOG)
            text = json.dumps(record.to_json(), ensure_ascii=False, indent=1)
            (made / RECORD).write_text(text, encoding="utf-8")
            # The one that is there goes aside first: a folder cannot replace one that is not empty.
            # Who runs it keeps the file.
            if target.exists() or target.is_symlink():
                os.replace(target, Path(name) / "old")
            os.replace(made, target)
    except OSError as error:
        raise not_writable(target, error) from error
    return target / PROGRAM


def remove(engine_id: str) -> Path:
    """Deletes the engine `engine_id` and what a build of it left; only folders that were made here.

    Raises:
        UsageError: no engine that is built here could have that name.
        EngineError: it is not there, it was not made here, or it runs.
    """
    folder = engine_folder(engine_id)
    left = work_folder(engine_id)
    if not folder.exists() and not folder.is_symlink():
        if left.is_dir() and not left.is_symlink():
            _delete(left)  # only half of a build is there
            return left
        raise EngineError(
            f"There is no engine {engine_id}.",
            hint="moestro engines list shows those that are here.",
            code="no-such-engine",
        )
    if folder.is_symlink() or not (folder / RECORD).is_file():
        raise EngineError(
            f"{folder} was not made by moestro, so it stays.",
            hint="Delete it yourself if it is not needed.",
            code="not-our-engine",
        )
    running = processes_of(folder / PROGRAM)
    if running:
        raise EngineError(
            f"{engine_id} is running (process {', '.join(map(str, running[:5]))}).",
            hint="Stop the service that uses it first.",
            code="engine-running",
        )
    _delete(folder)
    if left.is_dir() and not left.is_symlink():
        _delete(left)
    return folder


def processes_of(program: Path) -> list[int]:
    """The processes that run `program`, as far as this user may see them."""
    import psutil

    real = os.path.realpath(program)
    found = []
    for process in psutil.process_iter(["exe"]):
        exe = process.info["exe"]
        if exe and os.path.realpath(exe) == real:
            found.append(process.pid)
    return found


def _delete(folder: Path) -> None:
    """Out of sight first, in one step: half a folder is never taken for an engine."""
    try:
        with tempfile.TemporaryDirectory(prefix=".old-", dir=engines_folder()) as name:
            os.replace(folder, Path(name) / folder.name)
    except OSError as error:
        raise not_writable(folder, error) from error


def _read(folder: Path) -> BuildRecord | str:
    """The record in `folder`, or what is wrong with it."""
    try:
        with (folder / RECORD).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return f"it has no {RECORD}"
    except OSError as error:
        return error.strerror or type(error).__name__
    if len(content) > _MOST_BYTES:
        return f"its {RECORD} is too long"
    try:
        record = _parse(json.loads(content))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"its {RECORD} is damaged"
    if record.id != folder.name:
        return f"its {RECORD} is of another engine"
    if not os.access(record.program, os.X_OK) or not record.program.is_file():
        return f"{PROGRAM} is missing"
    return record


def _parse(said: Any) -> BuildRecord:
    if said["form"] != _FORM or said["family"] not in FAMILIES:
        raise ValueError("another form")
    seconds = float(said["seconds"])
    if not 0 <= seconds < 1e9:
        raise ValueError("no time that a build takes")
    return BuildRecord(
        id=_word(said["id"]),
        family=cast(Family, said["family"]),
        version=_word(said["version"]),
        commit=None if said["commit"] is None else _word(said["commit"]),
        source=_word(said["source"]),
        source_hash=_word(said["source_hash"]),
        flags=tuple(_words(said["flags"])),
        compiler=_word(said["compiler"]),
        instruction_sets=tuple(_words(said["instruction_sets"])),
        features=frozenset(_words(said["features"])) & frozenset(FEATURES),
        architectures=frozenset(_words(said["architectures"])),
        devices=tuple(_words(said["devices"])),
        built_at=datetime.fromisoformat(said["built_at"]).astimezone(UTC),
        seconds=seconds,
    )


def _words(said: Any) -> list[str]:
    if not isinstance(said, list) or len(said) > _MOST_NAMES:
        raise TypeError("not a list of names")
    return [_word(word) for word in said]


def _word(said: Any) -> str:
    if not isinstance(said, str) or len(said) > 4096 or not said.isprintable():
        raise TypeError("not a name")
    return said


def _damaged(folder: Path, why: str) -> Finding:
    return Finding(
        Severity.WARN,
        "engine-unreadable",
        "An engine that was built here cannot be used and is left out",
        f"{folder}: {why}",
        f"Build it again, or delete {folder}.",
    )
