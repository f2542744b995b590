"""Header bytes over HTTP: range requests, and nothing of the weights.

A server that ignores ranges sends the whole file from its start. Its answer is then read only as
far as the header goes, and dropped: no download happens by accident.
"""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from moestro.errors import DownloadError
from moestro.model.http import TIMEOUT_SECONDS, file_name, host, request, sister, translated
from moestro.model.source import ByteSource
from moestro.model.spec import ModelSpec, Projector

_DISCARD_BYTES = 64 << 10


class HttpSource:
    """One remote file. `token` goes to `address` alone, never to where it redirects."""

    first_read_bytes = 256 << 10

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._address = address
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._size_bytes: int | None = None
        self._transferred_bytes = 0
        self._stream: Any = None  # the answer of a server that ignores ranges
        self._stream_at = 0

    @property
    def name(self) -> str:
        return file_name(self._address)

    @property
    def location(self) -> str:
        return self._address

    @property
    def size_bytes(self) -> int | None:
        return self._size_bytes

    @property
    def transferred_bytes(self) -> int:
        return self._transferred_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`.

        Raises:
            ModelNotFound: the server says that there is no such file.
            DownloadError: it cannot be reached, refuses, or stops answering.
        """
        with translated(self._address):
            if self._stream is not None:
                return self._from_stream(offset, length)
            return self._from_range(offset, length)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _from_range(self, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        asked = request(
            self._address, token=self._token, range_=f"bytes={offset}-{offset + length - 1}"
        )
        try:
            answer = urllib.request.urlopen(asked, timeout=self._timeout_seconds)
        except urllib.error.HTTPError as error:
            with contextlib.closing(error):
                if error.code == 416:  # the file is shorter than the offset
                    self._note_total(error.headers.get("Content-Range"))
                    return b""
                raise
        if answer.status == 206:
            with contextlib.closing(answer):
                self._note_total(answer.headers.get("Content-Range"))
                self._check_start(answer.headers.get("Content-Range"), offset)
                data = bytes(answer.read(length))
            self._transferred_bytes += len(data)
            self._check_complete(answer, len(data), length)
            return data
        self._stream = answer
        length_header = answer.headers.get("Content-Length", "")
        if length_header.isdigit():
            self._size_bytes = int(length_header)
        return self._from_stream(offset, length)

    def _from_stream(self, offset: int, length: int) -> bytes:
        while self._stream_at < offset:
            passed = self._stream.read(min(_DISCARD_BYTES, offset - self._stream_at))
            if not passed:
                return b""
            self._count(len(passed))
        # No further than asked: what is not read is not sent, but for the sockets' buffers.
        data = bytes(self._stream.read(length))
        self._count(len(data))
        if self._size_bytes is not None and len(data) < min(length, self._size_bytes - offset):
            raise ConnectionError("it ended early")
        return data

    def _count(self, size_bytes: int) -> None:
        self._stream_at += size_bytes
        self._transferred_bytes += size_bytes

    def _check_complete(self, answer: Any, got: int, asked: int) -> None:
        promised = answer.headers.get("Content-Length", "")
        if promised.isdigit() and got < min(int(promised), asked):
            raise ConnectionError("it ended early")

    def _note_total(self, content_range: str | None) -> None:
        total = (content_range or "").rpartition("/")[2]
        if total.isdigit():
            self._size_bytes = int(total)

    def _check_start(self, content_range: str | None, offset: int) -> None:
        start = (content_range or "").removeprefix("bytes").strip().partition("-")[0]
        if start.isdigit() and int(start) != offset:
            raise DownloadError(
                f"{host(self._address)} answered with another part of the file than asked for.",
                hint="Download the file and give its path.",
            )


def read_remote(
    address: str,
    *,
    token: str | None = None,
    open_source: Callable[[str], ByteSource] | None = None,
    projector: Projector | None = None,
) -> ModelSpec:
    """The model at `address`; of a split one any part.

    Raises:
        ModelError, DownloadError: see `read_model`.
    """
    from moestro.model.reading import read_parts

    opener = open_source or (lambda url: HttpSource(url, token=token))
    return read_parts(
        file_name(address),
        open_part=lambda name: opener(sister(address, name)),
        has_part=None,
        projector=lambda: projector,
    )
