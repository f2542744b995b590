"""The file that keeps the keys: `gateway/keys.json` in moestro's data folder, for its owner only.

Unlike a measurement, a file of keys that is damaged never counts as absent: that would open what
was closed, or lose keys with the next one that is made.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moestro.errors import GatewayError
from moestro.gateway.keys import Key, KeyScope, digest_of, new_secret
from moestro.gateway.limits import UNLIMITED, Limits
from moestro.hardware.store import data_folder, write_whole

MOST_KEYS = 1000
"""Each request is compared with every key, which takes a fraction of a millisecond with so many."""

MOST_NAME = 80
_FORM = 1
_MOST_BYTES = 4 << 20

Keys = tuple[Key, ...]


def keys_path() -> Path:
    return data_folder() / "gateway" / "keys.json"


def create_key(
    name: str = "",
    scopes: Collection[KeyScope] = (KeyScope.INFERENCE,),
    limits: Limits = UNLIMITED,
    path: Path | None = None,
) -> tuple[Key, str]:
    """A new key and its secret, which is kept nowhere else.

    Raises:
        GatewayError: there are too many, or the file is damaged or cannot be written.
        ValueError: `scopes` is empty, or the name too long.
    """
    if not scopes or len(name) > MOST_NAME:
        raise ValueError("a key has a scope, and a name of at most 80 characters")
    secret = new_secret()

    def add(keys: Keys) -> tuple[Keys, Key]:
        if len(keys) >= MOST_KEYS:
            raise GatewayError(
                f"There are {len(keys)} keys, as many as there can be.",
                hint="moestro keys revoke ID takes one away.",
                code="too-many-keys",
            )
        key = Key(
            id=_new_id(keys),
            name=name,
            scopes=frozenset(scopes),
            created=datetime.now(UTC).replace(microsecond=0),
            digest=digest_of(secret),
            limits=limits,
        )
        return (*keys, key), key

    return _change(path or keys_path(), add), secret


def revoke_key(id_: str, path: Path | None = None) -> Key:
    """Takes the key away for good, and returns it.

    Raises:
        GatewayError: there is none of that id, or the file is damaged or cannot be written.
    """

    def drop(keys: Keys) -> tuple[Keys, Key]:
        for key in keys:
            if key.id == id_:
                return tuple(other for other in keys if other is not key), key
        raise GatewayError(
            f"There is no key with the id “{id_[:40]}”.",
            hint="moestro keys list shows them.",
            code="no-such-key",
        )

    return _change(path or keys_path(), drop)


def read_keys(path: Path) -> Keys:
    """The keys in the file, in the order in which they were made; none where there is no file.

    Raises:
        GatewayError: the file is damaged, of another version, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _failed("read", path, error) from error
    try:
        record = json.loads(content)
        if record["form"] != _FORM:
            raise GatewayError(
                f"The keys in {path} were written by another version of moestro.",
                hint="Use that version, or move the file away and create new keys.",
                code="keys-of-another-version",
            )
        keys = tuple(map(_key_of, record["keys"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path) from error
    if len({key.id for key in keys}) < len(keys):
        raise _damaged(path)
    return keys


def _change(path: Path, change: Callable[[Keys], tuple[Keys, Key]]) -> Key:
    """Processes that do this at once wait for each other; a reader sees the old file or the new."""
    import fcntl

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed("written", path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys, key = change(read_keys(path))
        record = {"form": _FORM, "keys": [_record_of(key) for key in keys]}
        write_whole(path, json.dumps(record, ensure_ascii=True, indent=1).encode())
    except OSError as error:
        raise _failed("written", path, error) from error
    finally:
        os.close(lock)
    return key


def _new_id(keys: Keys) -> str:
    """Has nothing to do with the secret, so that it may be shown and logged."""
    taken = {key.id for key in keys}
    while (name := f"key_{secrets.token_hex(4)}") in taken:
        pass
    return name


def _record_of(key: Key) -> dict[str, Any]:
    return {**key.to_json(), "sha256": key.digest.hex()}


def _key_of(record: dict[str, Any]) -> Key:
    """
    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    id_, name, digest = record["id"], record["name"], bytes.fromhex(record["sha256"])
    scopes = frozenset(map(KeyScope, record["scopes"]))
    sound = isinstance(id_, str) and id_ and isinstance(name, str) and scopes
    if not sound or len(digest) != 32:
        raise ValueError("not a key")
    return Key(
        id=id_,
        name=name,
        scopes=scopes,
        created=datetime.fromisoformat(record["created"]).astimezone(UTC),
        digest=digest,
        limits=Limits(_limit(record["requests_per_minute"]), _limit(record["concurrent"])),
    )


def _limit(value: Any) -> int | None:
    if value is None or (type(value) is int and value > 0):
        return value
    raise ValueError("not a limit")


def _damaged(path: Path) -> GatewayError:
    return GatewayError(
        f"The keys in {path} cannot be read: the file is damaged.",
        hint="Bring it back from a backup, or move it away and create new keys.",
        code="keys-damaged",
    )


def _failed(what: str, path: Path, error: OSError) -> GatewayError:
    return GatewayError(
        f"The keys in {path} could not be {what}: {error.strerror or type(error).__name__}.",
        hint="See who may use that file and its folder, and whether the disk is full.",
        code="keys-not-accessible",
    )
