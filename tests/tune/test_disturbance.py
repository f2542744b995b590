"""What others take of the processors, by the kernel's clock."""

from __future__ import annotations

import os
from collections import namedtuple

import pytest

from moestro.tune import disturbance
from moestro.tune.disturbance import LIMIT, Usage, Usual, taken, usage


@pytest.mark.parametrize(
    ("after", "share"),
    [
        (Usage(10.0, 0.0, 8.0, 8.0), 0.0),  # all of it ours
        (Usage(10.0, 0.0, 8.0, 6.0), 0.2),  # another program's
        (Usage(10.0, 3.0, 6.0, 6.0), 0.3),  # another guest's
        (Usage(10.0, 1.0, 6.0, 4.0), 0.3),
        (Usage(10.0, 0.0, 5.0, 6.0), 0.0),  # clocks that do not tick together
        (Usage(10.0, 9.0, 9.0, 0.0), 1.0),
        (Usage(0.0, 0.0, 0.0, 0.0), 0.0),
    ],
)
def test_what_was_taken(after: Usage, share: float) -> None:
    assert taken(Usage(0.0, 0.0, 0.0, 0.0), after) == pytest.approx(share)


def test_ours_is_what_our_processes_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "user nice system idle iowait irq softirq steal guest"
    times = namedtuple("times", names)(5.0, 1.0, 2.0, 10.0, 1.0, 0.5, 0.5, 3.0, 4.0)  # type: ignore[call-arg]
    monkeypatch.setattr(disturbance.psutil, "cpu_times", lambda: times)
    found = usage([os.getpid(), 2**22 + 1])
    assert (found.passed, found.stolen, found.spent) == (23.0, 3.0, 9.0)
    assert 0 < found.ours < 3600
    assert usage([]).ours == 0.0


def test_a_machine_without_a_clock_for_stolen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user nice system idle")(5.0, 1.0, 2.0, 10.0)
    monkeypatch.setattr(disturbance.psutil, "cpu_times", lambda: times)
    assert usage([]) == Usage(18.0, 0.0, 8.0, 0.0)


def test_what_is_always_so_disturbs_nobody() -> None:
    usual = Usual()
    assert usual.exceeded(0.3)
    for _ in range(100):
        usual.learn(0.3)
    assert not usual.exceeded(0.3 + LIMIT / 2)
    assert usual.exceeded(0.3 + 2 * LIMIT)
