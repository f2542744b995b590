"""Exported files on this machine's disk, and the model's files as this machine calls them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from moestro.errors import MoestroError, UsageError
from moestro.export.target import File
from moestro.planning.plan_file import PlanFile, legible
from moestro.planning.settings import EMBEDDED


def at_home(plan: PlanFile) -> PlanFile:
    """The same plan with the full paths of those files that are here: a service starts elsewhere
    than the plan was made. Links keep their names, which tell what the model is called and which
    part of it this is."""
    model = plan.model
    return replace(
        plan,
        model=replace(
            model,
            files=tuple(map(_full, model.files)),
            projector=None if model.projector is None else _full(model.projector),
        ),
    )


def engine_program(plan: PlanFile) -> str | None:
    """Where the plan's engine is on this machine, as far as it has a program of its own here."""
    if plan.engine.id == EMBEDDED:
        return None
    if os.path.isabs(plan.engine.id):
        return plan.engine.id
    from moestro.engine.build.record import built_engines

    programs = (str(info.program) for info in built_engines() if info.id == plan.engine.id)
    return next(filter(legible, programs), None)


def _full(location: str) -> str:
    if not os.path.exists(location):
        return location
    path = os.path.abspath(location)
    return path if legible(path) else location


def write(files: Sequence[File], out: str, *, force: bool) -> list[Path]:
    """Writes one file as `out`, or any number into `out` if that is a folder or ends like one;
    returns their paths.

    Raises:
        UsageError: several files, and `out` is one.
        MoestroError: a file is there already and `force` is not given, or something else is that
            no file may take the place of, or it cannot be written.
    """
    folder = os.path.isdir(out) or len(files) > 1 or out.endswith(("/", os.sep))
    if folder and os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(
            f"{out} is a file, and {_many(len(files))} a folder.",
            hint="Name a folder with --out.",
        )
    paths = [Path(out, file.name) if folder else Path(out) for file in files]
    there = [path for path in paths if os.path.lexists(path)]
    if there and not force:
        raise MoestroError(
            f"{' and '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} there already.",
            hint="--force writes over it; or choose another place with --out.",
            code="already-there",
        )
    for path in there:
        if not path.is_file():  # a pipe, a device, a link to nothing
            raise MoestroError(
                f"{path} is not a file that could be written over.",
                hint="Choose another place with --out; --out - prints.",
                code="not-written",
            )
    for file, path in zip(files, paths, strict=True):
        _write(file.text, path)
    return paths


def _many(count: int) -> str:
    return "this needs" if count == 1 else f"{count} files need"


def _write(text: str, path: Path) -> None:
    """All of it or nothing, where a link leads if `path` is one, readable as any new file is."""
    end = path.resolve()
    try:
        end.parent.mkdir(parents=True, exist_ok=True)
        number, part = tempfile.mkstemp(dir=end.parent, prefix=".moestro-")
        try:
            with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
                os.chmod(part, _mode(end))
                file.write(text)
            os.replace(part, end)
        except OSError:
            with suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise MoestroError(
            f"{path} could not be written: {error.strerror or error}.",
            hint="Choose another place with --out.",
            code="not-written",
        ) from error


def _mode(path: Path) -> int:
    """What the file has, or a new one would get."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
