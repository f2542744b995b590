"""What requests in progress hold of memory together: each body is kept until its answer ends, so
that another engine can be asked."""

from __future__ import annotations

SHARE = "moestro.share"
"""Where a request's scope has its `Share`."""


class Held:
    """`most_bytes` may be held at once, by all."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0


class Share:
    """Of one request; what it took is given back with the context."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self._bytes = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_error: object) -> None:
        self.give_back()

    def take(self, count: int) -> bool:
        """Whether so many bytes more may be held; if not, nothing is taken."""
        if self.held.bytes + count > self.held.most_bytes:
            return False
        self.held.bytes += count
        self._bytes += count
        return True

    def give_back(self) -> None:
        self.held.bytes -= self._bytes
        self._bytes = 0
