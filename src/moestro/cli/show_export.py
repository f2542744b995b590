"""Shows what was exported: files on one stream, what people should know of them on the other."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from moestro.export.target import Exported, File, Target

_MOST_WIDTH = 80
_LEAST_WIDTH = 20


def show_files(files: Sequence[File], out: TextIO) -> None:
    """One file as it is; several each after a line with its name."""
    for number, file in enumerate(files):
        if len(files) > 1:
            out.write("\n" * (number > 0) + f"==> {file.name} <==\n")
        out.write(file.text)


def show_advice(
    target: Target,
    exported: Exported,
    written: Sequence[Path],
    out: TextIO,
    width: int | None = None,
) -> None:
    """What could not be said, and how to use what was. `width` None is the terminal's."""
    if width is None:
        width = max(min(shutil.get_terminal_size().columns, _MOST_WIDTH), _LEAST_WIDTH)
    out.write("\n".join([*_lines(target, exported, written, width), ""]))


def _lines(
    target: Target, exported: Exported, written: Sequence[Path], width: int
) -> Iterator[str]:
    for path in written:
        yield f"written: {path}"
    if not written:
        yield ""
    tool = target.title.partition(":")[0]
    if exported.unexpressed:
        yield f"{tool}: not as planned"
        for entry in exported.unexpressed:
            yield from _wrapped(f"{entry.setting} ({entry.planned})", "  ", width)
            yield from _wrapped(entry.instead, "    ", width)
    else:
        yield f"{tool}: all of the plan is in it"
    if exported.use:
        yield "to use it"
        for step in exported.use:
            # In small letters it is a command, which stays one line so that it can be copied.
            yield from [f"  {step}"] if step[:1].islower() else _wrapped(step, "  ", width)


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
