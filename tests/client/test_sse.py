from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moestro.client.sse import EventSplitter, EventTooLarge, event_data

STREAM = 'data: {"a":"Grüß 🦙"}\n\n: ping\n\ndata: [DONE]\n\n'.encode()
EVENTS = ['data: {"a":"Grüß 🦙"}\n\n'.encode(), b": ping\n\n", b"data: [DONE]\n\n"]


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_how_the_stream_is_cut(cuts: list[int]) -> None:
    splitter = EventSplitter()
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(places)]
    assert [event for piece in pieces for event in splitter.feed(piece)] == EVENTS
    assert splitter.rest == b""


def test_every_event_is_valid_utf8_even_when_fed_by_bytes() -> None:
    splitter = EventSplitter()
    events = [event for byte in STREAM for event in splitter.feed(bytes([byte]))]
    assert [event.decode() for event in events] == [event.decode() for event in EVENTS]


def test_an_unfinished_event_stays_back() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\n\ndata: 2") == [b"data: 1\n\n"]
    assert splitter.rest == b"data: 2"
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"\n") == [b"data: 2\n\n"]


def test_carriage_returns_end_an_event_too() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\r\n\r") == []
    assert splitter.feed(b"\ndata: 2\n\n") == [b"data: 1\r\n\r\n", b"data: 2\n\n"]


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter(max_event_bytes=100)
    splitter.feed(b"data: " + b"x" * 90)
    with pytest.raises(EventTooLarge):
        splitter.feed(b"x" * 10)


def test_a_large_event_that_ends_is_fine() -> None:
    event = b"data: " + b"x" * 1000 + b"\n\n"
    assert EventSplitter(max_event_bytes=100).feed(event) == [event]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: [DONE]\n\n", b"[DONE]"),
        (b"data:x\n\n", b"x"),
        (b"data: x\r\n\r\n", b"x"),
        (b"event: error\ndata: {}\n\n", b"{}"),
        (b"data: 1\ndata: 2\n\n", b"1\n2"),
        (b": ping\n\n", None),
        (b":\n\n", None),
    ],
)
def test_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n"])
def test_a_flood_is_cut_in_one_pass(blank: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking through the rest of a chunk for each event in it would be quadratic."""
    looked = 0

    class Counting(bytearray):
        def find(self, part: bytes, start: int = 0) -> int:  # type: ignore[override]
            nonlocal looked
            found = super().find(part, start)
            looked += (len(self) if found < 0 else found + len(part)) - start
            return found

    monkeypatch.setattr("moestro.client.sse.bytearray", Counting, raising=False)
    event = b"data: {}" + blank
    events = EventSplitter().feed(event * 2000)
    assert events == [event] * 2000
    assert looked <= 3 * 2000 * len(event)
