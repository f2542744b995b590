"""What was measured on this machine, kept between runs: one JSON file per kind and machine.

A file that is damaged counts as absent, with a finding; it is written anew with the next save.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moestro import __version__
from moestro.errors import HardwareError, NoHome
from moestro.findings import Finding, Severity

_FORM = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """`payload` is None where nothing (readable) is kept; `finding` then says what is wrong, if
    anything is. `saved_at` is in UTC, `version` the moestro that wrote it."""

    payload: Any = None
    saved_at: datetime | None = None
    version: str | None = None
    finding: Finding | None = None


def data_folder() -> Path:
    """Where measurements are kept: `MOESTRO_DATA`, or the platform's usual place.

    Raises:
        NoHome: there is no such place.
    """
    chosen = os.environ.get("MOESTRO_DATA")
    if chosen:
        return Path(chosen)
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Application Support" / "moestro"
        place = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise NoHome("MOESTRO_DATA") from error
    return Path(place) / "moestro"


def stored_path(kind: str, identity: str) -> Path:
    """The file of one kind of measurement on one machine. Both are plain lower-case names."""
    for name in (kind, identity):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name that a file can have everywhere")
    return data_folder() / kind / f"{identity}.json"


def load(kind: str, identity: str) -> Stored:
    """What `save` kept. Never raises: what cannot be read is a finding."""
    path = stored_path(kind, identity)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return Stored()
    except OSError as error:
        return Stored(finding=_unreadable(path, error.strerror or type(error).__name__))
    try:
        record = json.loads(content)
        if record["form"] != _FORM or (record["kind"], record["identity"]) != (kind, identity):
            return Stored(finding=_unreadable(path, "it was written by another version"))
        return Stored(
            payload=record["payload"],
            saved_at=datetime.fromisoformat(record["saved_at"]).astimezone(UTC),
            version=str(record["moestro"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return Stored(finding=_unreadable(path, "it is damaged"))


def save(kind: str, identity: str, payload: Any) -> Path:
    """Keeps `payload` (anything that JSON holds) in place of what was there; whole or not at all.

    Raises:
        HardwareError: the disk is full, or the folder cannot be written to.
    """
    path = stored_path(kind, identity)
    record = {
        "form": _FORM,
        "kind": kind,
        "identity": identity,
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "moestro": __version__,
        "payload": payload,
    }
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise _not_kept(path, error) from error
    return path


def update(kind: str, identity: str, change: Callable[[Any], Any]) -> Path:
    """Keeps `change(what was there, or None)`. Two processes that do this wait for each other.

    Raises:
        HardwareError: as `save`.
    """
    import fcntl

    path = stored_path(kind, identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("a")
    except OSError as error:
        raise _not_kept(path, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return save(kind, identity, change(load(kind, identity).payload))


def write_whole(path: Path, content: bytes) -> None:
    """Another process sees the old file or the new one, also after a power cut."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _not_kept(path: Path, error: OSError) -> HardwareError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sentence = f"The measurement could not be kept: the disk under {path.parent} is full."
        hint = "Make room, or choose another place with MOESTRO_DATA."
    else:
        reason = error.strerror or type(error).__name__
        sentence = f"The measurement could not be kept in {path.parent}: {reason}."
        hint = "Choose another place with MOESTRO_DATA."
    return HardwareError(sentence, hint=hint, code="not-stored")


def _unreadable(path: Path, why: str) -> Finding:
    return Finding(
        Severity.WARN,
        "stored-measurement-unreadable",
        "A stored measurement cannot be read and is left out",
        f"{path}: {why}",
        "moestro hardware --measure writes a new one.",
    )
