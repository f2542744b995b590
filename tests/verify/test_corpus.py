from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.errors import UsageError
from moestro.verify.corpus import (
    DOMAINS,
    WINDOW_CHARACTERS,
    Chunk,
    Passage,
    built_in,
    cut,
    digest,
    from_file,
    windows,
)

# Domains whose tokens tell where they came from: thousands for the domain, units for the place.
texts = st.lists(st.integers(0, 60), min_size=1, max_size=6).map(
    lambda sizes: [
        (f"domain {number}", [1000 * number + place for place in range(size)])
        for number, size in enumerate(sizes)
    ]
)


def test_the_built_in_text_has_eight_domains_of_seven_to_eight_kilobytes() -> None:
    passages = built_in()
    assert tuple(passage.domain for passage in passages) == DOMAINS
    for passage in passages:
        assert 7000 <= len(passage.text.encode()) <= 8200, passage.domain


def test_the_built_in_text_hardly_repeats_itself() -> None:
    words = [word for passage in built_in() for word in passage.text.split()]
    runs = Counter(zip(*(words[place:] for place in range(8)), strict=False))
    assert max(runs.values()) <= 2


@given(texts, st.integers(1, 20), st.one_of(st.none(), st.integers(1, 200)))
def test_chunks_are_whole_disjoint_pieces_of_one_domain(
    tokenized: list[tuple[str, list[int]]], length: int, most_tokens: int | None
) -> None:
    available = {domain: len(tokens) // length for domain, tokens in tokenized}
    if not any(available.values()):
        with pytest.raises(UsageError) as refused:
            cut(tokenized, length=length, most_tokens=most_tokens)
        assert refused.value.code == "text-too-short"
        return
    chunks = cut(tokenized, length=length, most_tokens=most_tokens)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    whole = dict(tokenized)
    seen: set[int] = set()
    for chunk in chunks:
        tokens = [int(token) for token in chunk.tokens]
        start = tokens[0] % 1000
        assert start % length == 0
        assert tokens == whole[chunk.domain][start : start + length]
        assert seen.isdisjoint(tokens)
        seen |= set(tokens)
    wanted = sum(available.values()) if most_tokens is None else max(1, most_tokens // length)
    assert len(chunks) == min(wanted, sum(available.values()))
    # No domain gives two more than another that had some left.
    given_by = Counter(chunk.domain for chunk in chunks)
    for domain, count in available.items():
        if given_by[domain] < count:
            assert max(given_by.values()) <= given_by[domain] + 1


def test_a_limit_takes_chunks_from_the_whole_length_of_a_text() -> None:
    chunks = cut([("one", range(1000))], length=10, most_tokens=40)
    starts = [int(chunk.tokens[0]) for chunk in chunks]
    assert starts == [120, 370, 620, 870]
    assert all(later - earlier == 250 for earlier, later in pairwise(starts))


def test_too_short_a_text_says_how_much_there_is_and_how_much_is_needed() -> None:
    with pytest.raises(UsageError, match=r"300 tokens.*512"):
        cut([("mine", range(300)), ("yours", range(20))])


def test_the_digest_names_tokens_order_and_domains() -> None:
    def chunk(index: int, domain: str, *tokens: int) -> Chunk:
        return Chunk(index, domain, np.array(tokens, np.int32))

    chunks = (chunk(0, "a", 1, 2), chunk(1, "a", 3, 4))
    assert digest(chunks) == digest(list(chunks))
    others = [
        chunks[::-1],
        chunks[:1],
        (chunk(0, "a", 1, 2), chunk(1, "b", 3, 4)),
        (chunk(0, "a", 1, 2, 3), chunk(1, "a", 4)),
    ]
    assert len({digest(chunks), *(digest(other) for other in others)}) == 5


def test_a_text_of_the_user_is_one_domain(tmp_path: Path) -> None:
    path = tmp_path / "minutes.txt"
    path.write_text("\ufeffGrüße aus Köln", encoding="utf-8")
    (passage,) = from_file(path)
    assert (passage.domain, passage.text, passage.cut) == ("minutes", "Grüße aus Köln", False)


def test_a_long_text_is_cut_between_characters(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("aä" * 10, encoding="utf-8")  # three bytes a pair
    (passage,) = from_file(path, most_bytes=8)
    assert (passage.text, passage.cut) == ("aäaäa", True)


def test_of_a_long_text_only_pieces_are_cut_into_tokens() -> None:
    short, long = Passage("short", "a few words"), Passage("long", "word " * 100_000)
    for most_tokens in (512, 4096):
        found = windows((short, long), most_tokens)
        assert found[0] == short
        pieces = [passage for passage in found if passage.domain == "long"]
        assert len(pieces) == most_tokens // 512
        assert all(len(piece.text) <= WINDOW_CHARACTERS for piece in pieces)
        assert all(piece.text.startswith("word ") for piece in pieces)
    whole = windows((long,), 100_000)
    assert whole == (long,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"GGUF\x03\x00\x00\x00", "zero bytes"),
        ("Straße".encode("latin-1"), "byte 4"),
        (b"ends in half a character \xc3", "byte 25"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        from_file(path)


def test_a_text_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        from_file(tmp_path / "gone.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        from_file(tmp_path)
