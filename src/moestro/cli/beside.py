"""Work beside the main thread, which never keeps a process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def begin(work: Callable[[], Result]) -> Callable[[], Result]:
    """Starts `work` in a thread; calling what is returned waits for it, and gives its result or
    raises what it raised.

    Ctrl-C in the main thread does not wait for it, and the process does not either when it ends.
    Where no thread can be had, the work is done at once.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # a limit on threads
        run()
        thread = threading.current_thread()

    def result() -> Result:
        if thread is not threading.current_thread():
            thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result
