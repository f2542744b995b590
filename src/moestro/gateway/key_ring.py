"""The keys that a running gateway knows."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable
from pathlib import Path

from moestro.errors import GatewayError
from moestro.gateway.key_file import keys_path, read_keys
from moestro.gateway.keys import Key, digest_of

Mark = tuple[int, ...]
"""What tells one version of a file from another: its times of change in ns, size, inode."""

TRY_AGAIN_SECONDS = 1.0
"""Between two tries to read a file that cannot be read."""


class KeyRing:
    """The keys in a file, as they are at the moment of each look: one `stat` when nothing changed.

    A file that cannot be read when the ring is made is an error. One that becomes unreadable later
    changes nothing, and `on_note` is told: the keys that were valid stay so until it can be read
    again. A file that is taken away is different, it says that there are no keys.
    """

    def __init__(
        self, path: Path | None = None, on_note: Callable[[str], None] = lambda _text: None
    ) -> None:
        """
        Raises:
            GatewayError: the file is damaged, or cannot be read.
        """
        self._path = keys_path() if path is None else path
        self._on_note = on_note
        self._mark = self._look()
        self._keys = read_keys(self._path)
        self._noted: Mark | None = None
        self._not_before = float("-inf")
        self._ever = bool(self._keys)

    @property
    def keys(self) -> tuple[Key, ...]:
        self._refresh()
        return self._keys

    @property
    def ever_any(self) -> bool:
        """Whether there is a key, or was one since the ring was made. A gateway that asked for keys
        goes on doing so when the last one is revoked."""
        self._refresh()
        return self._ever

    def find(self, secret: str) -> Key | None:
        """The key with this secret. Compares with every key, each time in the same time, so that
        the time it takes tells nothing about a digest, nor which key it was."""
        self._refresh()
        digest = digest_of(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _refresh(self) -> None:
        # Looked at before it is read: a change in between is seen the next time.
        mark = self._look()
        if mark == self._mark:
            return
        if mark == self._noted and time.monotonic() < self._not_before:
            return
        before = len(self._keys)
        try:
            self._keys = read_keys(self._path)
        except GatewayError as error:
            if mark != self._noted:
                self._on_note(f"{error.sentence} The {before} keys read before stay valid.")
            self._noted, self._not_before = mark, time.monotonic() + TRY_AGAIN_SECONDS
            return
        self._mark, self._noted = mark, None
        self._ever = self._ever or bool(self._keys)
        self._on_note(f"The keys were changed: there were {before}, and are {len(self._keys)}.")

    def _look(self) -> Mark | None:
        """None where there is no file; empty where that cannot be told."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return None
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
