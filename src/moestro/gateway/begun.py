"""Coroutines that are begun at once, without a task: most of them never have to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Begun(Generator[Any, Any, Result], Generic[Result]):
    """A coroutine that has run until its end, or until it first has to wait. If it is not `done`,
    it has to be awaited, once; from another task, too, as long as it does not ask in which it runs
    (`asyncio.timeout` does)."""

    def __init__(self, awaitable: Awaitable[Result]) -> None:
        """Raises what the coroutine raises."""
        assert isinstance(awaitable, Coroutine)
        self._coroutine: Coroutine[Any, Any, Result] = awaitable
        self._first: Any = None
        self.done = False
        self.result: Result
        try:
            self._first = self._coroutine.send(None)
        except StopIteration as end:
            self.done = True
            self.result = end.value

    def __await__(self) -> Begun[Result]:
        return self

    def send(self, value: Any) -> Any:
        """What it waits for, to the event loop: first what it has been waiting for already."""
        first, self._first = self._first, None
        return self._coroutine.send(value) if first is None else first

    def throw(self, *error: Any) -> Any:
        """To where it waits."""
        return self._coroutine.throw(*error)
