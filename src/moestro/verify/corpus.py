"""The text that both models read: passages of several domains, cut into chunks of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moestro.errors import UsageError
from moestro.units import MIB

CHUNK_TOKENS = 512
MOST_TEXT_BYTES = 64 * MIB
"""Of a user's file no more is read: it is the length of some hundred novels."""

WINDOW_CHARACTERS = 16 * CHUNK_TOKENS
"""Enough for a chunk: tokens of ordinary text have three to five characters."""

DOMAINS = (
    "story",
    "explanation",
    "dialogue",
    "code",
    "mathematics",
    "structured",
    "german",
    "multilingual",
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of one kind. `cut` says that the file it came from goes on."""

    domain: str
    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """`tokens` [T] of one domain; `index` counts over the whole text."""

    index: int
    domain: str
    tokens: NDArray[np.int32]


def built_in() -> tuple[Passage, ...]:
    """Eight domains of about 8 KB each, written for this purpose."""
    folder = files("moestro.verify") / "text"
    return tuple(
        Passage(domain, (folder / f"{domain}.txt").read_text(encoding="utf-8"))
        for domain in DOMAINS
    )


def from_file(path: Path, *, most_bytes: int = MOST_TEXT_BYTES) -> tuple[Passage, ...]:
    """The user's own text, as one domain named like the file; the first `most_bytes` of it.

    Raises:
        UsageError: no such file, not UTF-8 text, or nothing in it.
    """
    hint = "--text takes a file of plain text in UTF-8."
    try:
        with path.open("rb") as file:
            raw = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.", hint=hint) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint=hint) from error
    is_cut = len(raw) > most_bytes
    raw = raw[:most_bytes]
    if b"\0" in raw:
        raise UsageError(f"{path} is not a text: it holds zero bytes.", hint=hint)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The cut may have gone through a character; that is not the file's fault.
        if not is_cut or error.end < len(raw):
            sentence = f"{path} is not UTF-8: byte {error.start} begins no character."
            raise UsageError(sentence, hint=hint) from error
        text = raw[: error.start].decode("utf-8-sig")
    if not text.strip():
        raise UsageError(f"{path} is empty.", hint=hint)
    return (Passage(path.stem or "text", text, is_cut),)


def windows(passages: Sequence[Passage], most_tokens: int) -> tuple[Passage, ...]:
    """What of `passages` has to be cut into tokens, so that `most_tokens` of them can be chosen:
    of a long text as many pieces as there could be chunks, spread evenly over it. So the effort
    is bounded by the tokens wanted, not by the text."""
    found: list[Passage] = []
    pieces = max(1, most_tokens // CHUNK_TOKENS)
    for passage in passages:
        if len(passage.text) <= 2 * pieces * WINDOW_CHARACTERS:
            found.append(passage)
            continue
        for number in range(pieces):
            start = (2 * number + 1) * (len(passage.text) - WINDOW_CHARACTERS) // (2 * pieces)
            piece = passage.text[start : start + WINDOW_CHARACTERS]
            # A word that is cut in two would be no word of the text.
            _, _, whole = piece.partition(" ")
            found.append(Passage(passage.domain, whole or piece, passage.cut))
    return tuple(found)


def cut(
    tokenized: Sequence[tuple[str, Sequence[int]]],
    *,
    length: int = CHUNK_TOKENS,
    most_tokens: int | None = None,
) -> tuple[Chunk, ...]:
    """Chunks of exactly `length` tokens; what remains of each text at its end is dropped.

    With `most_tokens` there are only as many chunks as fit (one at least), spread evenly: the
    domains take turns, and each domain's are taken from its whole length.

    Raises:
        UsageError: there is no whole chunk (code `text-too-short`).
    """
    if length < 1:
        raise ValueError("a chunk has at least one token")
    whole = [len(tokens) // length for _, tokens in tokenized]
    if not any(whole):
        longest = max((len(tokens) for _, tokens in tokenized), default=0)
        raise UsageError(
            f"The text is too short: {longest} tokens, where one chunk needs {length}.",
            hint=f"Give a text of at least {length} tokens, or leave --text out.",
            code="text-too-short",
        )
    most = sum(whole) if most_tokens is None else max(1, most_tokens // length)
    chunks: list[Chunk] = []
    for (domain, tokens), available, wanted in zip(
        tokenized, whole, _shares(whole, most), strict=True
    ):
        for place in range(wanted):
            start = (2 * place + 1) * available // (2 * wanted) * length
            part = np.asarray(tokens[start : start + length], np.int32)
            chunks.append(Chunk(len(chunks), domain, part))
    return tuple(chunks)


def _shares(available: Sequence[int], most: int) -> list[int]:
    """How many chunks each domain gives, taking turns until `most` are found."""
    shares = [0] * len(available)
    left = min(most, sum(available))
    while left:
        for number, count in enumerate(available):
            if left and shares[number] < count:
                shares[number] += 1
                left -= 1
    return shares


def digest(chunks: Iterable[Chunk]) -> str:
    """A name for exactly these tokens in this order: SHA-256, hexadecimal."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(f"{chunk.domain}\0{len(chunk.tokens)}\0".encode())
        found.update(np.ascontiguousarray(chunk.tokens, "<i4").tobytes())
    return found.hexdigest()
