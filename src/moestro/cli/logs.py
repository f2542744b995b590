"""`moestro logs`: what a service and its engines wrote."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from moestro.cli.services import log_path, the_one
from moestro.errors import MoestroError
from moestro.words import plain

LOOK_SECONDS = 0.2
TAIL_BYTES = 4 << 20


@click.command(name="logs")
@click.option("--port", type=int, metavar="N", default=None, help="Which one, if several run.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
def command(port: int | None, lines: int, follow: bool) -> int:
    """The log of a service that runs here, or, with --port, of the last one that did."""
    if port is not None:
        path = log_path(port)
    else:
        one = the_one(None)
        if one.log is None:
            raise MoestroError(
                f"{one.url} was started by moestro up, which writes to its own terminal.",
                hint="moestro serve keeps a log.",
                code="no-log",
            )
        path = Path(one.log)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(size - TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
            place = file.tell()
    except OSError as error:
        raise MoestroError(
            f"There is no log at {path}: {error.strerror or error}.",
            hint="Only moestro serve keeps one.",
            code="no-log",
        ) from error
    for line in text.splitlines()[-lines:] if lines else ():
        print(plain(line))
    sys.stdout.flush()
    if follow:
        _follow(path, place)
    return 0


def _follow(path: Path, place: int) -> None:
    """A file that became shorter was moved aside and begun anew."""
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            size = path.stat().st_size
            place = 0 if size < place else place
            with path.open("rb") as file:
                file.seek(place)
                new = file.read()
        except OSError:
            continue
        whole, _, _ = new.rpartition(b"\n")
        if whole:
            place += len(whole) + 1
            for line in whole.decode(errors="replace").splitlines():
                print(plain(line))
            sys.stdout.flush()
