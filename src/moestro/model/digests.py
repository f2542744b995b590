"""What a model's keys say, small enough to be kept and compared: long values as their hash.

A token list has 250,000 members; whether two files have the same one is told by 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from moestro.model.gguf import GgufHeader
from moestro.model.metadata import Scalar, SkippedArray, SkippedText
from moestro.model.source import ByteSource

Plain = Scalar | tuple[Scalar, ...]
"""A value of a key. What is long is the text `sha256:` with the hash of its encoded members."""

MAX_KEPT_CHARACTERS = 256
_PIECE_BYTES = 1 << 20


def plain_values(source: ByteSource, header: GgufHeader, keys: Iterable[str]) -> dict[str, Plain]:
    """The values of `keys` in the file `source`, whose header is `header`."""
    return {key: _plain(source, header, key) for key in keys}


def _plain(source: ByteSource, header: GgufHeader, key: str) -> Plain:
    value = header.metadata[key]
    long_text = isinstance(value, str) and len(value) > MAX_KEPT_CHARACTERS
    texts = isinstance(value, list) and any(isinstance(member, str) for member in value)
    if isinstance(value, SkippedArray | SkippedText) or long_text or texts:
        return _digest(source, *header.spans[key])
    return tuple(value) if isinstance(value, list) else value


def _digest(source: ByteSource, begin: int, end: int) -> str:
    found = hashlib.sha256()
    while begin < end:
        piece = source.read_at(begin, min(_PIECE_BYTES, end - begin))
        if not piece:
            break
        found.update(piece)
        begin += len(piece)
    return f"sha256:{found.hexdigest()}"
