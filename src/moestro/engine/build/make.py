"""One engine, from its source to its place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from moestro.engine.build import source as sources
from moestro.engine.build.compile import compile_targets, configure, job_count
from moestro.engine.build.fetch import PINNED, Pinned, fetch
from moestro.engine.build.places import (
    LOG,
    PROGRAM,
    claimed,
    engine_id,
    engines_folder,
    not_writable,
    work_folder,
)
from moestro.engine.build.recipe import Recipe, recipe_for, this_host
from moestro.engine.build.record import BuildRecord, install
from moestro.engine.build.smoke import try_engine
from moestro.engine.build.source import Source, identify
from moestro.engine.build.toolchain import Toolchain, find_nvcc, find_toolchain
from moestro.engine.build.unpack import unpack
from moestro.engine.registry import Family
from moestro.errors import EngineError, UsageError
from moestro.hardware.gpu import Gpu
from moestro.units import GIB, format_bytes

Stage = Literal["source", "configure", "compile", "try"]

_DISK_BYTES = 2 * GIB
_CUDA_DISK_BYTES = 6 * GIB
# Processor time of a whole build for the processor alone, on a server's core of 2023. That of
# ik_llama.cpp is measured, that of llama.cpp estimated.
_CORE_SECONDS: dict[Family, float] = {"llama.cpp": 2100.0, "ik_llama.cpp": 2400.0}

Tell = Callable[[Stage, int, int | None], None]
"""Told the stage, how much of it is done, and of how much; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is needed is here: tools, room and memory. `capabilities` are those of the GPUs here."""

    family: Family
    tools: Toolchain
    recipe: Recipe
    jobs: int

    @property
    def cuda(self) -> bool:
        return self.tools.nvcc is not None

    @property
    def expected_seconds(self) -> float | None:
        """About how long it will take; None for CUDA, where it depends on too much."""
        return None if self.cuda else _CORE_SECONDS[self.family] / self.jobs


def prepare(
    family: Family, *, cuda: bool | None, jobs: int | None, gpus: tuple[Gpu, ...], cores: int,
    free_bytes: int,
) -> Prepared:  # fmt: skip
    """Looks for everything that a build needs, before anything is fetched. `gpus`, `cores` and
    `free_bytes` (of memory) are the machine's. `cuda` None takes it where nvcc and one of NVIDIA's
    GPUs are here.

    Raises:
        EngineError: a tool, memory or room on the disk is missing; the hint says what helps.
    """
    nvidia = [gpu for gpu in gpus if gpu.vendor == "nvidia"]
    wanted = bool(nvidia) and find_nvcc() is not None if cuda is None else cuda
    tools = find_toolchain(family, cuda=wanted)
    count = job_count(jobs, cores, free_bytes)
    _check_room(_CUDA_DISK_BYTES if wanted else _DISK_BYTES)
    capabilities = (gpu.capability for gpu in nvidia if gpu.capability is not None)
    host = this_host(cuda=wanted, capabilities=capabilities)
    return Prepared(family, tools, recipe_for(family, host, tools.accepts), count)


def build_engine(prepared: Prepared, given: Path | None, tell: Tell | None = None) -> BuildRecord:
    """Brings the source (`given`: a folder or an archive; else the pinned one), compiles it, tries
    the program and installs it. An interrupt keeps what is compiled for the next call.

    Raises:
        EngineError: the source is not usable, it does not compile, or the program is not sound.
        DownloadError: the source could not be fetched.
    """
    started = time.monotonic()
    say = tell or (lambda stage, done, total: None)
    say("source", 0, None)
    with _given(prepared.family, given) as found:
        pinned = PINNED[prepared.family]
        version = pinned.version if found is None else found.version
        name = engine_id(prepared.family, version, cuda=prepared.cuda)
        work = work_folder(name)
        with claimed(work) as held:
            try:
                source = _bring(work, prepared.tools, pinned, found, say)
            except OSError as error:
                raise not_writable(work, error) from error
            program, log = _compile(prepared, source, work, held, say)
            say("try", 0, None)
            instruction_sets = try_engine(
                program, prepared.family, gpu=bool(prepared.recipe.devices)
            )
            record = BuildRecord(
                id=name,
                family=prepared.family,
                version=source.version,
                commit=source.commit,
                source=source.origin,
                source_hash=source.hash,
                flags=prepared.recipe.flags,
                compiler=prepared.tools.cxx_name,
                instruction_sets=instruction_sets,
                features=source.features,
                architectures=source.architectures,
                devices=prepared.recipe.devices,
                built_at=datetime.now(UTC),
                seconds=time.monotonic() - started,
            )
            install(record, program, log)
            shutil.rmtree(work, ignore_errors=True)  # objects and source: nobody needs them now
    return record


def _compile(
    prepared: Prepared, source: Source, work: Path, held: int, say: Tell
) -> tuple[Path, Path]:
    """The program that was compiled, and the log."""
    build, log = work / "build", work / LOG
    log.unlink(missing_ok=True)
    if prepared.family == "ik_llama.cpp":
        sources.write_build_info(source.folder, source.version, source.commit)
    recipe = _named(prepared, source)
    say("configure", 0, None)
    configure(prepared.tools, recipe, source.folder, build, log, held=held)
    say("compile", 0, None)
    compile_targets(
        prepared.tools, build, [PROGRAM], prepared.jobs, log,
        lambda done, total: say("compile", done, total), held=held,
    )  # fmt: skip
    program = build / "bin" / PROGRAM
    if not program.is_file():
        raise EngineError(
            f"The compiler made no {PROGRAM}.", hint=f"What it said is in {log}.",
            code="build-failed",
        )  # fmt: skip
    return program, log


def _named(prepared: Prepared, source: Source) -> Recipe:
    """llama.cpp says what it is told to be; else it would ask git about whatever is around it."""
    if prepared.family != "llama.cpp":
        return prepared.recipe
    number = source.version[1:].partition("-")[0] if source.version.startswith("b") else "0"
    named = {
        "LLAMA_BUILD_NUMBER": number if number.isdigit() else "0",
        "LLAMA_BUILD_COMMIT": source.commit[:9] if source.commit else "unknown",
    }
    return Recipe({**prepared.recipe.options, **named}, prepared.recipe.devices)


@contextmanager
def _given(family: Family, path: Path | None) -> Iterator[Source | None]:
    """The source that the user named, unpacked for a while where it is an archive."""
    if path is None:
        yield None
        return
    if not path.exists():
        raise UsageError(f"{path} does not exist.")
    if path.is_dir():
        yield _right(family, identify(path))
        return
    folder = engines_folder() / ".work"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unpacked = tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder)
    except OSError as error:
        raise not_writable(folder, error) from error
    with unpacked as name:
        unpack(path, Path(name))
        yield _right(family, identify(Path(name), origin=str(path.resolve())))


def _right(family: Family, found: Source) -> Source:
    if found.family != family:
        raise UsageError(
            f"{found.origin} holds {found.family}, not {family}.",
            hint=f"moestro engines build {found.family} --source {found.origin}",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What lies in a work folder. `key` names the source before it is there: a pinned commit, or
    the hash of what the user gave. `tools` are those that its objects were made with."""

    key: str
    tools: tuple[str, ...]
    version: str
    commit: str | None
    hash: str
    origin: str


def _bring(work: Path, tools: Toolchain, pinned: Pinned, found: Source | None, say: Tell) -> Source:
    """The source in the work folder. What an earlier attempt left there is used if it is the same;
    objects of another source or of other tools are not."""
    folder, path = work / "source", work / "stamp.json"
    key = pinned.ref if found is None else found.hash
    used = (tools.generator, str(tools.cc), str(tools.cxx), tools.cxx_name)
    kept = _read_stamp(path)
    if kept is None or kept.key != key or not folder.is_dir():
        path.unlink(missing_ok=True)
        shutil.rmtree(work / "build", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        placed = _place(work, folder, pinned, found, say)
        kept = _Stamp(key, used, placed.version, placed.commit, placed.hash, placed.origin)
    elif kept.tools != used:
        shutil.rmtree(work / "build", ignore_errors=True)
        kept = replace(kept, tools=used)
    path.write_text(json.dumps(asdict(kept)), encoding="utf-8")
    return Source(pinned.family, folder, kept.version, kept.commit, kept.hash, kept.origin)


def _place(work: Path, folder: Path, pinned: Pinned, found: Source | None, say: Tell) -> Source:
    """Puts the source into `folder`, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="source-", dir=work) as name:
        made = Path(name) / "source"
        if found is not None:
            sources.copy_source(found, made)
            source = replace(found, folder=folder)
        else:
            made.mkdir()
            commit = fetch(pinned, made, lambda done: say("source", done, None))
            fetched = identify(made)
            if fetched.family != pinned.family:
                raise EngineError(f"{pinned.repository} holds {fetched.family}.")
            made = fetched.folder
            source = Source(pinned.family, folder, pinned.version, commit, fetched.hash,
                            pinned.repository)  # fmt: skip
        os.replace(made, folder)
    return source


def _read_stamp(path: Path) -> _Stamp | None:
    """None where there is none, or a damaged one: then everything is brought anew."""
    try:
        said = json.loads(path.read_bytes())
        stamp = _Stamp(**{**said, "tools": tuple(said["tools"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    words = (stamp.key, stamp.version, stamp.hash, stamp.origin, *stamp.tools)
    return stamp if all(isinstance(word, str) for word in words) else None


def _check_room(needed_bytes: int) -> None:
    folder = engines_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise not_writable(folder, error) from error
    if free_bytes < needed_bytes:
        raise EngineError(
            f"A build takes about {format_bytes(needed_bytes)} of disk, and "
            f"{format_bytes(free_bytes)} is free under {folder}.",
            hint="Make room, or choose another place with MOESTRO_DATA.",
            code="build-needs-room",
        )
