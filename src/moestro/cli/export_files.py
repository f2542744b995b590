"""Exported files on this machine's disk, and the model's files as this machine calls them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from moestro.errors import MoestroError, UsageError
from moestro.export.target import File
from moestro.planning.plan_file import PlanFile


def at_home(plan: PlanFile) -> PlanFile:
    """The same plan with the full paths of those files that are here: a service starts elsewhere
    than the plan was made. A link leads out of a folder that a container is shown, so its end is
    named; a hub's cache is made of links that stay within it."""
    model = plan.model
    return replace(
        plan,
        model=replace(
            model,
            files=tuple(map(_full, model.files)),
            projector=None if model.projector is None else _full(model.projector),
        ),
    )


def _full(location: str) -> str:
    if not os.path.exists(location):
        return location
    path = os.path.abspath(location)
    in_a_hub = "/snapshots/" in path and "/models--" in path
    if os.path.islink(path) and not in_a_hub:
        path = os.path.realpath(path)
    return path if path.isprintable() else location


def write(files: Sequence[File], out: str, *, force: bool) -> list[Path]:
    """Writes one file as `out`, or any number into `out` if that is a folder or ends like one;
    returns their paths.

    Raises:
        UsageError: several files, and `out` is one.
        MoestroError: a file is there already and `force` is not given, or it cannot be written.
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
    for file, path in zip(files, paths, strict=True):
        _write(file.text, path)
    return paths


def _many(count: int) -> str:
    return "this needs" if count == 1 else f"{count} files need"


def _write(text: str, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MoestroError(
            f"{path} could not be written: {error.strerror or error}.",
            hint="Choose another place with --out.",
            code="not-written",
        ) from error
