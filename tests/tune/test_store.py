"""Results that are kept, found again, and not believed when they are damaged or old."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.hardware.store import data_folder
from moestro.planning.settings import Reason, Settings
from moestro.tune.depth import DepthCurve, Step
from moestro.tune.result import TuneResult
from moestro.tune.statistics import Interval
from moestro.tune.store import TUNED, keep, stored

START = Settings(context=2048, parallel=1, threads=2)


@pytest.fixture(autouse=True)
def _own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))


@pytest.fixture
def machine() -> str:
    return "a-machine-with-4-cores"


@pytest.fixture
def model(tmp_path: Path) -> list[Path]:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(range(256)) * 64)
    return [path]


def result(**changes: Any) -> TuneResult:
    found = TuneResult(
        objective="requests per second",
        start=START,
        settings=replace(START, ubatch=256, engine="built"),
        gain=Interval(1.3, 1.2, 1.4),
        confirmed=True,
        trials=(),
        reasons=(Reason("ubatch", "ubatch 256: 12 % faster", "measured"),),
        spent_seconds=60.0,
        budget_seconds=90.0,
        noise=0.03,
        curve=DepthCurve({(0, 1): Step(0.1, 0.09, 0.11)}),
        workload="chat × 1",
        engine_version="b11549",
    )
    return found.but(**changes)


def test_nothing_is_known_at_first(machine: str, model: list[Path]) -> None:
    found = stored(machine, model)
    assert (found.tuned, found.stale, found.findings) == (None, (), ())


def test_what_was_kept_is_found(machine: str, model: list[Path]) -> None:
    keep(machine, model, result())
    found = stored(machine, model, workload="chat × 1", engine_versions={"built": "b11549"})
    assert found.tuned is not None
    assert found.stale == found.findings == ()
    assert found.tuned.settings == result().settings
    assert found.tuned.gain == result().gain
    assert found.tuned.reasons == result().reasons
    assert found.tuned.curve == result().curve


def test_each_workload_has_its_own_and_the_last_one_counts(machine: str, model: list[Path]) -> None:
    keep(machine, model, result())
    keep(machine, model, result(settings=replace(START, ubatch=1024)))
    keep(machine, model, result(workload="long", settings=replace(START, ubatch=2048)))
    chat, long = (stored(machine, model, workload=name).tuned for name in ("chat × 1", "long"))
    assert chat is not None
    assert long is not None
    assert (chat.settings.ubatch, long.settings.ubatch) == (1024, 2048)
    assert stored(machine, model, workload="another").tuned is None
    assert stored(machine, model).tuned is not None


def test_another_machine_or_model_has_none(machine: str, model: list[Path], tmp_path: Path) -> None:
    keep(machine, model, result())
    assert stored("a-machine-with-8-cores", model).tuned is None
    another = tmp_path / "another.gguf"
    another.write_bytes(b"GGUF" * 4096)
    assert stored(machine, [another]).tuned is None


def test_what_changed_since_is_said(machine: str, model: list[Path]) -> None:
    keep(machine, model, result())
    newer = stored(machine, model, engine_versions={"built": "b12000"})
    assert newer.tuned is not None
    assert any("b11549" in why and "b12000" in why for why in newer.stale)
    gone = stored(machine, model, engine_versions={})
    assert any("not here any more" in why for why in gone.stale)
    status = model[0].stat()
    os.utime(model[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert any("anew" in why for why in stored(machine, model).stale)


HOSTILE: list[tuple[str, Any]] = [
    ("settings", {"context": -1, "parallel": 1, "threads": 1}),
    ("settings", {"context": 1, "parallel": 1, "threads": 1, "command": "rm"}),
    ("settings", []),
    ("settings", {"context": 10**30, "parallel": 1, "threads": 1}),
    ("gain", {"expected": 1, "low": 2, "high": 3}),
    ("gain", {"expected": "much", "low": 2, "high": 3}),
    ("reasons", [{"setting": "ubatch", "because": "\x1b[2J", "source": "measured"}]),
    ("reasons", 7),
    ("files", [["a"]]),
    ("workload", None),
    ("tuned_at", "yesterday"),
    ("tuned_at", "2026-01-01T00:00:00"),
    ("spent_seconds", -5),
    ("confirmed", "yes"),
    ("engine_version", "\x07" * 3),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE)
def test_a_damaged_entry_is_a_finding(
    machine: str, model: list[Path], name: str, value: Any
) -> None:
    path = keep(machine, model, result())
    record = json.loads(path.read_text())
    record["payload"][0][name] = value
    path.write_text(json.dumps(record))
    found = stored(machine, model)
    assert found.tuned is None
    assert [finding.code for finding in found.findings] == ["tuned-unreadable"]
    keep(machine, model, result())  # and is written over
    assert stored(machine, model).tuned is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"form": 1}', b"[" * 100_000]
)
def test_a_damaged_file_is_a_finding(machine: str, model: list[Path], content: bytes) -> None:
    path = keep(machine, model, result())
    assert path.is_relative_to(data_folder() / TUNED)
    path.write_bytes(content)
    found = stored(machine, model)
    assert found.tuned is None
    assert len(found.findings) == 1


def test_a_damaged_curve_costs_the_curve_only(machine: str, model: list[Path]) -> None:
    path = keep(machine, model, result())
    record = json.loads(path.read_text())
    record["payload"][0]["curve"] = [{"depth": "deep"}]
    path.write_text(json.dumps(record))
    found = stored(machine, model)
    assert found.tuned is not None
    assert found.tuned.curve is None
