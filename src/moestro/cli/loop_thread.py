"""An event loop beside a main thread that waits for a person to type."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """`input()` edits lines only in the main thread, and must not stop what else runs meanwhile: an
    engine's watch, a web server. So the loop lives in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Waits for a coroutine. Ctrl-C cancels it and waits for its end; what it returns even so
        is the result, otherwise KeyboardInterrupt is raised."""
        work = _Work(self._loop, coroutine)
        try:
            return work.result()
        except KeyboardInterrupt:
            work.cancel()
            try:
                return work.result()
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None

    @contextmanager
    def entered(self, context: AbstractAsyncContextManager[Result]) -> Iterator[Result]:
        """An async context, entered and left by one and the same task."""
        opened: Future[Result] = Future()
        closing = asyncio.Event()

        async def hold() -> None:
            try:
                async with context as value:
                    opened.set_result(value)
                    await closing.wait()
            except BaseException as error:
                if opened.done():
                    raise
                opened.set_exception(error)

        work = _Work(self._loop, hold())
        try:
            yield opened.result()
        finally:
            if opened.done():
                self._loop.call_soon_threadsafe(closing.set)
            else:
                work.cancel()
            work.result()


class _Work(Generic[Result]):
    """A task on the loop, as another thread sees it. Unlike a future of
    `run_coroutine_threadsafe`, a cancelled one is done only when its clean-up is."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Result]
    ) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[Result] | None = None
        self._future: Future[Result] = Future()
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            self._future.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())

    def cancel(self) -> None:
        # Callbacks run in order, so `_begin` has run before this one.
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> Result:
        return self._future.result()
