"""Server-sent events as bytes: where one ends, and what it carries."""

from __future__ import annotations

DONE = b"[DONE]"

MAX_EVENT_BYTES = 64 * 1024 * 1024


class EventTooLarge(ValueError):
    """An event that never ends."""


class EventSplitter:
    """Cuts a byte stream into whole events, each with the blank line that ends it.

    Chunks of a TCP stream end anywhere, also inside a UTF-8 character; an event is the smallest
    piece that a client can use. So a stream that breaks is always cut between events, and what
    follows (an error event) can't be glued to half of one.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._rest = bytearray()
        self._max_event_bytes = max_event_bytes

    @property
    def rest(self) -> bytes:
        """Bytes of an event that has not ended yet."""
        return bytes(self._rest)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Events completed by this chunk, in order.

        Raises:
            EventTooLarge: the unfinished event has outgrown its bound.
        """
        if not self._rest and _is_one_event(chunk):
            return [chunk]
        # Only the last three bytes of the old rest can be part of a new event's end.
        start = max(0, len(self._rest) - 3)
        self._rest += chunk
        ends = [_Ending(self._rest, blank, start) for blank in (b"\n\n", b"\r\n\r\n")]
        events: list[bytes] = []
        done = 0
        while found := [end for ending in ends if (end := ending.after(done)) is not None]:
            events.append(bytes(self._rest[done : min(found)]))
            done = min(found)
        if done:
            del self._rest[:done]
        if len(self._rest) > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")
        return events


def _is_one_event(chunk: bytes) -> bool:
    """Whether it is just what engines write at a time: an event, and nothing else."""
    return chunk.find(b"\n\n") == len(chunk) - 2 >= 0 and b"\r\n\r\n" not in chunk


class _Ending:
    """Where one kind of blank line comes next. What was found is kept until it is passed: a kind
    that never comes is looked for once per chunk, not once per event."""

    def __init__(self, buffer: bytearray, blank: bytes, start: int) -> None:
        self._buffer = buffer
        self._blank = blank
        self._found = buffer.find(blank, start)

    def after(self, place: int) -> int | None:
        """The end of the first one that begins at `place` or later."""
        if 0 <= self._found < place:
            self._found = self._buffer.find(self._blank, place)
        return self._found + len(self._blank) if self._found >= 0 else None


def event_data(event: bytes) -> bytes | None:
    """The `data` of an event, its lines joined; None for a comment or a keep-alive."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]  # what engines send: one line
    lines = [
        line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
