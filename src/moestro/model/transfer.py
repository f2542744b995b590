"""Downloads one file so that an interruption costs nothing: what arrived is kept and continued.

Beside `NAME` lies `NAME.part` while it grows, and `NAME.part.json`, which remembers whose bytes
they are (length, entity tag). A server that cannot continue sends the file from its start again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from moestro.errors import DownloadError, ModelNotFound
from moestro.model.http import TIMEOUT_SECONDS, file_name, host, request, translated
from moestro.units import format_bytes

Progress = Callable[[int, int | None], None]
"""Called with (bytes that are here, bytes in all or None)."""

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
DISK_RESERVE_BYTES = 64 << 20
"""Left free on the disk: a full one breaks more than this download."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What a server says about a file before it is fetched."""

    size_bytes: int | None
    tag: str | None


def probe(address: str, *, token: str | None = None) -> RemoteFile:
    """Asks for one byte, to learn the length and the tag.

    Raises:
        ModelNotFound, DownloadError: as `http.translated` says.
    """
    with translated(address):
        asked = request(address, token=token, range_="bytes=0-0")
        with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS) as answer:
            return _described(answer)


def transfer(
    address: str,
    target: Path,
    *,
    token: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    pause_seconds: float = 1.0,
) -> Path:
    """Fetches `address` to `target`, continuing an earlier attempt.

    `sha256` (hexadecimal) is checked where it is known. Broken connections are tried again up to
    `ATTEMPTS` times, as long as each brings something.

    Raises:
        DownloadError: no room on the disk, wrong hash, another process at it, or the network.
        ModelNotFound: the server has no such file.
    """
    _make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    with _locked(part, address) as file:
        tries = 0
        while True:
            before = _length(file)
            try:
                with translated(address):
                    _receive(address, file, part, token, progress)
                break
            except ModelNotFound:
                raise
            except DownloadError:
                tries = 0 if _length(file) > before else tries + 1
                if tries >= ATTEMPTS or not _length(file):
                    raise
                time.sleep(pause_seconds * 2**tries)
        file.flush()
        os.fsync(file.fileno())
        if sha256 is not None:
            _check_hash(file, part, sha256, address)
        part.replace(target)
    _note_path(part).unlink(missing_ok=True)
    return target


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """That `needed_bytes` fit on the disk of `folder` (or of its nearest parent that exists).

    Raises:
        DownloadError: they do not.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes + DISK_RESERVE_BYTES > free_bytes:
        raise DownloadError(
            f"{what} needs {format_bytes(needed_bytes)}; {place} has "
            f"{format_bytes(free_bytes)} free.",
            hint="Make room, or choose another place with MOESTRO_CACHE (addresses) or "
            "HF_HUB_CACHE (hub models).",
        )


def partial_bytes(target: Path) -> int:
    """How much of `target` an earlier attempt left behind."""
    try:
        return target.with_name(target.name + ".part").stat().st_size
    except OSError:
        return 0


def _receive(
    address: str, file: BinaryIO, part: Path, token: str | None, progress: Progress | None
) -> None:
    """One attempt: continues `file`, or begins it anew where the server wants that."""
    have = _length(file)
    note = _read_note(part)
    # Without a tag nobody can say whether the rest belongs to the beginning.
    if have and (note is None or note.tag is None):
        have = _restart(file)
    if have and note is not None and have == note.size_bytes:
        return
    asked = request(
        address,
        token=token,
        range_=f"bytes={have}-" if have else None,
        if_range=note.tag if have and note is not None else None,
    )
    try:
        answer = urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            error.close()
            _restart(file)
            raise DownloadError(f"{file_name(address)} has changed on {host(address)}.") from error
        raise
    with contextlib.closing(answer):
        remote = _described(answer)
        if have and answer.status != 206:
            have = _restart(file)
        if remote.size_bytes is not None:
            check_room(part.parent, remote.size_bytes - have, file_name(address))
        _write_note(part, remote)
        file.seek(have)
        _copy(answer, file, have, remote.size_bytes, progress)
    arrived = _length(file)
    if remote.size_bytes is not None and arrived != remote.size_bytes:
        raise DownloadError(
            f"{host(address)} stopped in the middle of {file_name(address)} "
            f"({format_bytes(arrived)} of {format_bytes(remote.size_bytes)}).",
            hint="Start it again: it continues where it stopped.",
        )


def _copy(
    answer: Any, file: BinaryIO, have: int, total: int | None, progress: Progress | None
) -> None:
    while True:
        data = answer.read(CHUNK_BYTES)
        if not data:
            return
        try:
            file.write(data)
            file.flush()  # what arrived must be there if this process is killed
        except OSError as error:
            raise DownloadError(
                f"Writing stopped: {(error.strerror or str(error)).lower()}.",
                hint="Make room on the disk and start it again: it continues where it stopped.",
            ) from error
        have += len(data)
        if progress is not None:
            progress(have, total)


def _described(answer: Any) -> RemoteFile:
    total = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
    if answer.status == 200:
        total = answer.headers.get("Content-Length") or ""
    tag = answer.headers.get("ETag")
    if tag is not None and tag.startswith("W/"):
        tag = None  # a weak tag does not promise the same bytes
    return RemoteFile(
        int(total) if total.isdigit() else None, tag or answer.headers.get("Last-Modified")
    )


@contextlib.contextmanager
def _locked(part: Path, address: str) -> Iterator[BinaryIO]:
    """The part file, open for one process only."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(part, error) from error
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(
                f"Another process is downloading {file_name(address)}.",
                hint="Wait until it is done; the file is then used from there.",
            ) from error
        yield file


def in_progress(part: Path) -> bool:
    """Whether another process writes to this part file now."""
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> DownloadError:
    return DownloadError(
        f"{path} cannot be written: {(error.strerror or str(error)).lower()}.",
        hint="Choose another place with MOESTRO_CACHE or HF_HUB_CACHE.",
    )


def _check_hash(file: BinaryIO, part: Path, sha256: str, address: str) -> None:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if digest == sha256.lower():
        return
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)
    raise DownloadError(
        f"{file_name(address)} arrived damaged: its SHA-256 is {digest[:12]}…, "
        f"not {sha256[:12].lower()}….",
        hint="It was thrown away; download it again.",
    )


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size if not file.closed else 0


def _restart(file: BinaryIO) -> int:
    file.seek(0)
    file.truncate()
    return 0


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path) -> RemoteFile | None:
    try:
        data = json.loads(_note_path(part).read_text(encoding="utf-8"))
        return RemoteFile(data["size_bytes"], data["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # then the download begins anew


def _write_note(part: Path, remote: RemoteFile) -> None:
    _note_path(part).write_text(json.dumps(asdict(remote)), encoding="utf-8")
