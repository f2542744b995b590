"""Work beside the main thread."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from moestro.cli.beside import begin


def test_the_result_is_waited_for() -> None:
    gate = threading.Event()
    result = begin(lambda: gate.wait(10) and "done")
    gate.set()
    assert result() == "done"
    assert result() == "done"


def test_what_it_raises_is_raised_by_whoever_waits() -> None:
    result = begin(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        result()


def test_without_a_thread_it_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert begin(lambda: 3)() == 3


def test_a_process_does_not_wait_for_it() -> None:
    program = "import time; from moestro.cli.beside import begin; begin(lambda: time.sleep(600))"
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
