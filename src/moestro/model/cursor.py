"""A forward-only reader over a byte source that never holds more than one chunk.

Everything that a header claims (lengths, counts) passes through here, so the bounds are here too:
a claim beyond a hard limit is `ModelCorrupt`, a claim beyond the end of the file `ModelTruncated`.
"""

from __future__ import annotations

import re
import struct
from functools import cache

from moestro.errors import ModelCorrupt, ModelTruncated
from moestro.model.source import ByteSource
from moestro.words import shown

MAX_HEADER_BYTES = 256 << 20
"""Real headers are 1 to 60 MiB (the token list); nothing legitimate comes near this."""

MAX_KEPT_BYTES = 32 << 20
"""Of a header, what may be held in memory: everything but skipped arrays. Real ones keep 1 MiB."""

MAX_CHUNK_BYTES = 2 << 20
_LEAST_CHUNK_BYTES = 64 << 10
_LENGTH = struct.Struct("<Q")

_RUN = 512
_SHORT_LENGTHS = (*range(4, 24), 1, 2, 3, *range(24, 64))
"""Lengths of tokens in bytes, the frequent ones first."""


@cache
def _short_strings() -> re.Pattern[bytes]:
    """Matches exactly `_RUN` strings, each shorter than 64 bytes."""
    one = b"|".join(re.escape(bytes([n])) + rb"\0{7}.{%d}" % n for n in _SHORT_LENGTHS)
    return re.compile(b"(?:%b){%d}+" % (one, _RUN), re.DOTALL)


class Cursor:
    """Reads little-endian values from the start of `source` onwards.

    It fetches little at a time, but for long token lists, and there no more than their rest can
    need. So the last fetch does not reach far into the weights. `expected_bytes` may be set by
    whoever reads: about how much of the header is still to come.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.expected_bytes: int | None = None
        self._buffer = b""
        self._start = 0  # file offset of the buffer's first byte
        self._at = 0  # position inside the buffer; may lie beyond its end after a skip
        self._kept_bytes = 0
        self._list_chunk_bytes = source.first_read_bytes

    @property
    def offset(self) -> int:
        return self._start + self._at

    def peek(self, length: int) -> bytes:
        """The first bytes of the file (fewer if it is shorter), without passing over them."""
        if not self._buffer:
            self._buffer = self.source.read_at(0, self.source.first_read_bytes)
        return self._buffer[:length]

    def take(self, length: int, what: str) -> bytes:
        """The next `length` bytes."""
        self.keep(length, what)
        self._need(length, what)
        data = self._buffer[self._at : self._at + length]
        self._at += length
        return data

    def keep(self, size_bytes: int, what: str) -> None:
        """Counts memory that the reader is going to hold.

        Raises:
            ModelCorrupt: it would be more than any header needs.
        """
        self._kept_bytes += size_bytes
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise self._too_long(what)

    def unpack(self, layout: struct.Struct, what: str) -> tuple[int | float | bool, ...]:
        self._need(layout.size, what)
        values = layout.unpack_from(self._buffer, self._at)
        self._at += layout.size
        return values

    def length(self, what: str) -> int:
        """An unsigned 64-bit count or length."""
        self._need(8, what)
        (value,) = _LENGTH.unpack_from(self._buffer, self._at)
        self._at += 8
        return int(value)

    def skip(self, length: int, what: str) -> None:
        """Passes over `length` bytes without fetching them."""
        self.check(length, what)
        self._at += length

    def skip_strings(self, count: int, what: str) -> None:
        """Passes over `count` strings (64-bit length, then bytes).

        Token lists have 250,000 of them, so this is the one place here that is written for speed:
        runs of short strings are passed by the regular expression engine, in a quarter of the time.
        """
        self.check(8 * count, what)
        pass_run = _short_strings().match
        left = count
        began = self.offset
        while left:
            rest_bytes = 16 * left  # a guess, until some of them have been seen
            if left < count:
                rest_bytes = (self.offset - began) * left // (count - left)
            self._need(8, what, fetch_bytes=min(rest_bytes, self._list_chunk_bytes))
            while left >= _RUN and (run := pass_run(self._buffer, self._at)):
                self._at = run.end()
                left -= _RUN
            left -= self._pass_strings(min(left, _RUN))
            if self.offset > MAX_HEADER_BYTES:
                raise self._too_long(what)
        self.check(0, what)

    def _pass_strings(self, count: int) -> int:
        """Passes over at most `count` strings whose lengths lie in the buffer; returns how many."""
        buffer, at = self._buffer, self._at
        passed = 0
        while passed < count and at + 8 <= len(buffer):
            at += 8 + _LENGTH.unpack_from(buffer, at)[0]
            passed += 1
        self._at = at
        return passed

    def check(self, length: int, what: str) -> None:
        """That `length` more bytes are plausible.

        Raises:
            ModelCorrupt: the header would be longer than any header is.
            ModelTruncated: the file ends before.
        """
        end = self.offset + length
        if end > MAX_HEADER_BYTES:
            raise self._too_long(what)
        size = self.source.size_bytes
        if size is not None and end > size:
            raise self._ended(what)

    def _need(self, length: int, what: str, fetch_bytes: int | None = None) -> None:
        if self._at + length <= len(self._buffer):
            return
        self.check(length, what)
        if fetch_bytes is not None:
            self._list_chunk_bytes = min(2 * self._list_chunk_bytes, MAX_CHUNK_BYTES)
        else:
            fetch_bytes = self.source.first_read_bytes
            if self.expected_bytes is not None:
                fetch_bytes = min(fetch_bytes, self.expected_bytes)
        wanted = max(fetch_bytes + _LEAST_CHUNK_BYTES, length)
        kept = self._buffer[self._at :]  # empty after a skip past the end
        start = self.offset
        fetched = self.source.read_at(start + len(kept), wanted - len(kept))
        self._buffer = kept + fetched
        self._start, self._at = start, 0
        if len(self._buffer) < length:
            raise self._ended(what)

    def _too_long(self, what: str) -> ModelCorrupt:
        return ModelCorrupt(
            f"The header of {self.source.name} claims an absurd size for {shown(what)}.",
            hint="The file is damaged or was made to harm; get it again from its source.",
        )

    def _ended(self, what: str) -> ModelTruncated:
        size = self.source.size_bytes
        length = "" if size is None else f" (it has {size:,} bytes)"
        return ModelTruncated(
            f"{self.source.name} ends inside its header{length}, in {shown(what)}.",
            hint="The download or copy is incomplete; get the file again.",
        )
