"""Are a model's files whole, and are they what was published?"""

from __future__ import annotations

import errno
import math
import os
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from moestro.errors import ModelError
from moestro.model.gguf import read_gguf_header
from moestro.model.identity import content_digest
from moestro.model.roles import Role
from moestro.model.source import FileSource, unreadable
from moestro.model.spec import ModelSpec

_MOST_SUMS_BYTES = 1 << 20
_MOST_HOLES = 100_000
_PIECE_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUM_LINE = re.compile(r"\\?([0-9a-fA-F]{64})[ \t]+[*]?(?:\./)?(.+)")
_LISTS = ("SHA256SUMS", "SHA256SUMS.txt", "sha256sums.txt", "sha256sum.txt", "checksums.sha256")
_DEPTH = 6
"""How many folders up a download's notes are looked for; files lie this deep at most."""


@dataclass(frozen=True, slots=True)
class FileState:
    """One file. `hole_bytes` were never written: a download that was cut off after its space had
    been set aside. `known_sha256` is what its publisher, a hub's cache or a list of sums beside it
    says (`known_from` names which), `found_sha256` what was computed; None where there is none, or
    where it was not computed. Digests are hexadecimal, in lower case. `trailing_bytes` follow the
    last tensor and belong to none."""

    path: Path
    size_bytes: int
    hole_bytes: int | None = None
    known_sha256: str | None = None
    known_from: str | None = None
    found_sha256: str | None = None
    trailing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Completeness:
    files: tuple[FileState, ...]


Progress = Callable[[int], None]
"""Told the bytes that were hashed so far, and at least once for each file. What it raises ends the
look, and reaches the caller as it is."""


class _TimeIsUp(Exception):
    pass


def look_at_files(
    spec: ModelSpec,
    *,
    hash_up_to_bytes: int,
    hash_up_to_seconds: float | None = None,
    progress: Progress = lambda done_bytes: None,
) -> Completeness:
    """The state of the model's files, which have to be on this machine.

    Hashes are computed of files whose published one is known, as long as all of them together stay
    within `hash_up_to_bytes`, and those that are ready within `hash_up_to_seconds` (None: however
    long it takes); nothing else reads more than a header.

    Raises:
        ModelError: a file is gone, changes, or is no longer what `spec` was read from.
    """
    roles = {tensor.name: tensor.role for tensor in spec.tensors}
    states = []
    for file in spec.files:
        progress(0)
        states.append(_state(Path(file.location), spec.format, roles))
    wanted, left = [], hash_up_to_bytes
    for state in states:
        if state.known_sha256 is not None and state.size_bytes <= left:
            left -= state.size_bytes
            wanted.append(state.path)
    found = _digests(wanted, hash_up_to_seconds, progress)
    return Completeness(tuple(replace(s, found_sha256=found.get(s.path)) for s in states))


def _digests(paths: Sequence[Path], seconds: float | None, progress: Progress) -> dict[Path, str]:
    """Of as many files as there is time for."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    found: dict[Path, str] = {}
    done = 0

    def told(done_of_file: int) -> None:
        progress(done + done_of_file)
        if time.monotonic() > end:
            raise _TimeIsUp

    for path in paths:
        before = _identity(path)
        try:
            digest = content_digest(path, told)
        except _TimeIsUp:
            break
        if _identity(path) != before:
            raise ModelError(
                f"{path.name} changed while it was read.",
                hint="Wait for the download or copy that writes it, then ask again.",
            )
        found[path] = digest
        done += before[0]
    return found


def _identity(path: Path) -> tuple[int, int, int]:
    """Length, time of the last change, number of the file."""
    try:
        state = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return state.st_size, state.st_mtime_ns, state.st_ino


def _state(path: Path, form: str, roles: dict[str, Role]) -> FileState:
    try:
        size = path.stat().st_size
        holes = _holes(path)
    except OSError as error:
        raise unreadable(path, error) from error
    known, source = known_sha256(path)
    if form != "gguf":
        lost = None if holes is None else sum(end - begin for begin, end in holes)
        return FileState(path, size, lost, known, source)
    with FileSource(path) as file:
        header = read_gguf_header(file)
    start = header.data_offset
    weights = [(start + t.offset, t.size_bytes, roles.get(t.name)) for t in header.tensors]
    return FileState(
        path=path,
        size_bytes=size,
        hole_bytes=None if holes is None else _lost_bytes(holes, weights),
        known_sha256=known,
        known_from=source,
        trailing_bytes=_trailing(size, start + header.data_bytes, header.alignment),
    )


def _trailing(size: int, end: int, alignment: int) -> int:
    """Writers may pad the last tensor too."""
    return size - end if size > end + -end % alignment else 0


def _holes(path: Path) -> list[tuple[int, int]] | None:
    """Where the file system keeps nothing for the file: (first, past the last) byte of each larger
    place. None where that cannot be asked; some file systems say that there is data everywhere.

    A hole is not always a loss: a file system may keep no block that is all zeros (ZFS), and so do
    copies that were made sparse. Matrices have rows of zeros that fill them up. So only a hole as
    large as the smallest piece of a download counts.
    """
    if not hasattr(os, "SEEK_HOLE"):
        return None
    found = []
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    try:
        size = os.fstat(descriptor).st_size
        at = 0
        for _ in range(_MOST_HOLES):
            begin = os.lseek(descriptor, at, os.SEEK_HOLE) if at < size else size
            if begin >= size:
                break
            at = _next_data(descriptor, begin, size)
            if at - begin >= _PIECE_BYTES:
                found.append((begin, at))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return found


def _next_data(descriptor: int, begin: int, size: int) -> int:
    try:
        return os.lseek(descriptor, begin, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data up to the end
            raise
        return size


def _lost_bytes(
    holes: Sequence[tuple[int, int]], weights: Sequence[tuple[int, int, Role | None]]
) -> int:
    """Bytes of `holes` that should hold weights: (offset, size, role). Of a token table, whose last
    rows may be zeros, only a loss of more than a quarter counts."""
    begins = [begin for begin, _ in holes]
    before = [0, *accumulate(end - begin for begin, end in holes)]

    def holes_up_to(offset: int) -> int:
        count = bisect_left(begins, offset)
        return before[count] - max(0, holes[count - 1][1] - offset) if count else 0

    lost = 0
    for offset, size, role in weights:
        inside = holes_up_to(offset + size) - holes_up_to(offset)
        table = role in (Role.EMBEDDING, Role.OUTPUT)
        if inside > (size // 4 if table else 0):
            lost += inside
    return lost


def known_sha256(path: Path) -> tuple[str | None, str | None]:
    """The SHA-256 that somebody published of the file, and who says so: the hub's cache, the notes
    of a download, a list of sums beside it."""
    for look in (_from_cache, _from_download, _from_own_sum, _from_list):
        found = look(path)
        if found is not None:
            return found[0].lower(), found[1]
    return None, None


def _from_cache(path: Path) -> tuple[str, str] | None:
    """Caches name a file by its content, and links give it its name."""
    real = path.resolve()
    if real.parent.name != "blobs":
        return None
    if _SHA256.fullmatch(real.name):
        return real.name, "the hub's cache"
    if real.name.startswith("sha256-") and _SHA256.fullmatch(real.name[7:]):
        return real.name[7:], "Ollama's store"
    return None


def _from_download(path: Path) -> tuple[str, str] | None:
    """What the hub's client notes of a file in a folder of the user's: commit, hash, time."""
    path = path.absolute()
    for folder in list(path.parents)[:_DEPTH]:
        notes = folder / ".cache" / "huggingface" / "download"
        text = _small_text(notes / f"{path.relative_to(folder)}.metadata")
        if text is not None:
            lines = text.splitlines()
            if len(lines) > 1 and _SHA256.fullmatch(lines[1].strip()):
                return lines[1].strip(), "the notes of the download"
            return None
    return None


def _from_own_sum(path: Path) -> tuple[str, str] | None:
    for ending in (".sha256", ".sha256sum"):
        name = path.name + ending
        words = (_small_text(path.with_name(name)) or "").split()
        if words and _SHA256.fullmatch(words[0].lower()):
            return words[0], name
    return None


def _from_list(path: Path) -> tuple[str, str] | None:
    for name in _LISTS:
        for line in (_small_text(path.with_name(name)) or "").splitlines():
            found = _SUM_LINE.fullmatch(line.strip())
            if found and found[2] == path.name:
                return found[1], name
    return None


def _small_text(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(_MOST_SUMS_BYTES).decode(errors="replace")
    except OSError:
        return None
