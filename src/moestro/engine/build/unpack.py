"""The archive of a source, unpacked: nothing outside its folder, and no more than a source has."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from moestro.errors import EngineError

_MOST_FILES = 50_000
_MOST_BYTES = 2 << 30


def unpack(archive: Path, target: Path) -> None:
    """Unpacks `archive` (.tar.gz) into `target`, which must exist. Links are left out: a source
    needs none, and they could lead anywhere.

    Raises:
        EngineError: it is no such archive, it is damaged, or it is larger than any source.
    """
    try:
        with tarfile.open(archive, "r:gz") as file:
            file.extractall(target, members=_members(file, archive), filter="data")
    except FileNotFoundError as error:
        raise _unusable(f"{archive} does not exist.") from error
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise _unusable(f"{archive} is not a sound .tar.gz archive.") from error
    except OSError as error:  # which a damaged gzip stream is, too
        reason = error.strerror or "it is damaged"
        raise _unusable(f"{archive} cannot be unpacked: {reason}.") from error


def _members(file: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """Files and folders, counted before they are written."""
    total_bytes = 0
    for count, member in enumerate(file):
        total_bytes += member.size
        if count >= _MOST_FILES or total_bytes > _MOST_BYTES:
            raise _unusable(f"{archive} holds more than the source of an engine.")
        if member.isreg() or member.isdir():
            yield member


def _unusable(sentence: str) -> EngineError:
    return EngineError(
        sentence,
        hint="Give the .tar.gz of the Python package xllamacpp or ik-llama-cpp-python, or a folder "
        "with its content.",
        code="not-an-engine-source",
    )
