from __future__ import annotations

from pathlib import Path

import pytest

from moestro.engine import oom
from moestro.engine.reasons import explain_exit


def test_both_counters_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vmstat, events = tmp_path / "vmstat", tmp_path / "memory.events"
    monkeypatch.setattr(oom, "VMSTAT", vmstat)
    monkeypatch.setattr(oom, "CGROUP_EVENTS", events)
    assert oom.oom_kills() is None
    vmstat.write_text("nr_free_pages 5\noom_kill 2\n")
    assert oom.oom_kills() == 2
    events.write_text("low 0\noom 9\noom_kill 3\n")
    assert oom.oom_kills() == 5
    events.write_text("oom_kill many\n")
    assert oom.oom_kills() == 2


def test_a_kill_for_memory_is_told_from_another() -> None:
    killed = explain_exit([], -9, "big.gguf", oom_killed=True)
    assert killed.memory
    assert "big.gguf" in killed.sentence
    assert not explain_exit([], -9, "big.gguf").memory
    assert not explain_exit([], -15, "big.gguf", oom_killed=True).memory
