"""Which model a file holds, whatever it is called: digests of a sample and of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from moestro.errors import ModelError

_HEAD_BYTES = 1 << 20
_SAMPLE_BYTES = 4096
_SAMPLES = 256
_PIECE_BYTES = 4 << 20


def sampled_digest(paths: Sequence[Path]) -> str:
    """A digest (hexadecimal) of the files' lengths, their first MiB and 256 places spread evenly
    over each: about 2 MiB to read of a file of any size. Files that differ elsewhere share it. One
    that did not change since is not read again.

    Raises:
        ModelError: a file cannot be read.
    """
    seen = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        seen.append((path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return _sampled(tuple(seen))


@lru_cache(maxsize=8)
def _sampled(seen: tuple[tuple[Path, int, int, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for path, *_ in seen:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(size.to_bytes(8, "little"))
                digest.update(file.read(_HEAD_BYTES))
                for number in range(_SAMPLES if size > _HEAD_BYTES else 0):
                    file.seek(_HEAD_BYTES + (size - _HEAD_BYTES) * number // _SAMPLES)
                    digest.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise _unreadable(path, error) from error
    return digest.hexdigest()


def content_digests(
    paths: Sequence[Path], progress: Callable[[int], None] = lambda done_bytes: None
) -> tuple[str, ...]:
    """The sha256 (hexadecimal) of each file, as hubs publish it; `progress` is told the bytes read
    so far.

    Raises:
        ModelError: a file cannot be read.
    """
    digests, done = [], 0
    for path in paths:
        size = 0

        def told(done_bytes: int, before: int = done) -> None:
            nonlocal size
            size = done_bytes
            progress(before + done_bytes)

        digests.append(content_digest(path, told))
        done += size
    return tuple(digests)


def content_digest(path: Path, progress: Callable[[int], None] = lambda done_bytes: None) -> str:
    """The sha256 (hexadecimal) of one file. What `progress` raises reaches the caller as it is.

    Raises:
        ModelError: it cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    for piece in _pieces(path):
        digest.update(piece)
        done += len(piece)
        progress(done)  # outside of what is turned into a ModelError
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        while True:
            try:
                piece = file.read(_PIECE_BYTES)
            except OSError as error:
                raise _unreadable(path, error) from error
            if not piece:
                return
            yield piece


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{path} could not be read: {error.strerror or type(error).__name__}.",
        hint="Check the path, and that this user may read it.",
    )
