"""Shows what was exported: files on one stream, what people should know of them on the other."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from moestro.export.target import Exported, File, Target

_WIDTH = 80


def show_files(files: Sequence[File], out: TextIO) -> None:
    """One file as it is; several each after a line with its name."""
    for number, file in enumerate(files):
        if len(files) > 1:
            out.write("\n" * (number > 0) + f"==> {file.name} <==\n")
        out.write(file.text)


def show_advice(target: Target, exported: Exported, written: Sequence[Path], out: TextIO) -> None:
    """What could not be said, and how to use what was."""
    out.write("\n".join([*_lines(target, exported, written), ""]))


def _lines(target: Target, exported: Exported, written: Sequence[Path]) -> Iterator[str]:
    for path in written:
        yield f"written: {path}"
    if not written:
        yield ""
    tool = target.title.partition(":")[0]
    if exported.unexpressed:
        yield f"{tool}: not as planned"
        for entry in exported.unexpressed:
            yield from _wrapped(f"{entry.setting} ({entry.planned})", "  ")
            yield from _wrapped(entry.instead, "    ")
    else:
        yield f"{tool}: all of the plan is in it"
    if exported.use:
        yield "to use it"
        for step in exported.use:
            yield from _step(step)


def _step(step: str) -> Iterator[str]:
    """A step in small letters is a command, which stays one when it is copied."""
    lines = _wrapped(step, "  ")
    if step[:1].islower():
        lines = [f"{line} \\" for line in _wrapped(step, "  ", _WIDTH - 2)]
        lines[-1] = lines[-1].removesuffix(" \\")
    yield from lines


def _wrapped(text: str, indent: str, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
