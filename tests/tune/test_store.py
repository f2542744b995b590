"""Results that are kept, found again, and not believed when they are damaged or old."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.errors import ModelError
from moestro.hardware.store import data_folder
from moestro.load.scenarios import random_scenario, scenario_named
from moestro.load.summary import Slo
from moestro.planning.settings import Reason, Settings
from moestro.tune.depth import DepthCurve, Step
from moestro.tune.result import TuneResult
from moestro.tune.statistics import UNCHANGED, Interval
from moestro.tune.store import TUNED, StoredTune, found_nothing, keep, outdated, stored
from moestro.tune.workload import Work

CHAT = Work(scenario_named("chat"), 1)
LONG = Work(scenario_named("long-prompt"), 1)
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
        engine_version="b11549",
    )
    return found.but(**changes)


def only(machine: str, model: list[Path]) -> StoredTune:
    (found,) = stored(machine, model).results
    return found


def test_nothing_is_known_at_first(machine: str, model: list[Path]) -> None:
    found = stored(machine, model)
    assert (found.results, found.findings) == ((), ())


def test_what_was_kept_is_found(machine: str, model: list[Path]) -> None:
    work = Work(scenario_named("users"), 4, Slo(ttft_seconds=2.0))
    keep(machine, model, work, result())
    assert stored(machine, model).findings == ()
    found = only(machine, model)
    assert found.workload == "users, 4 users, first token within 2 s"
    assert (found.streams, found.prompt_tokens, found.output_tokens) == (4, 275, 96)
    assert found.settings == result().settings
    assert found.gain == result().gain
    assert found.reasons == result().reasons
    assert found.curve == result().curve
    assert outdated(found, model, "b11549") is None
    assert not found_nothing(found)


def test_a_start_that_stayed_is_told_from_a_gain(machine: str, model: list[Path]) -> None:
    keep(machine, model, CHAT, result(settings=START, gain=UNCHANGED))
    assert found_nothing(only(machine, model))


def test_each_workload_has_its_own_and_the_last_one_comes_first(
    machine: str, model: list[Path]
) -> None:
    keep(machine, model, CHAT, result())
    keep(machine, model, LONG, result(settings=replace(START, ubatch=2048)))
    keep(machine, model, CHAT, result(settings=replace(START, ubatch=1024)))
    found = stored(machine, model).results
    assert [(one.workload, one.settings.ubatch) for one in found] == [
        ("chat, 1 user", 1024),
        ("long-prompt, 1 user", 2048),
    ]


def test_random_words_of_other_lengths_are_another_workload(
    machine: str, model: list[Path]
) -> None:
    for prompt in (100, 4000):
        keep(machine, model, Work(random_scenario(prompt, 10), 1), result())
    assert [one.prompt_tokens for one in stored(machine, model).results] == [4000, 100]


def test_another_machine_or_model_has_none(machine: str, model: list[Path], tmp_path: Path) -> None:
    keep(machine, model, CHAT, result())
    assert stored("a-machine-with-8-cores", model).results == ()
    another = tmp_path / "another.gguf"
    another.write_bytes(b"GGUF" * 4096)  # of the same size
    assert another.stat().st_size == model[0].stat().st_size
    assert stored(machine, [another]).results == ()
    keep(machine, [another], CHAT, result(settings=START))
    assert only(machine, model).settings.ubatch == 256
    assert only(machine, [another]).settings == START


def test_a_file_is_not_read_where_none_of_its_size_was_tuned(
    machine: str, model: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(machine, model, CHAT, result())

    def read(_: object) -> str:
        raise AssertionError("its content was looked at")

    monkeypatch.setattr("moestro.tune.store.sampled_digest", read)
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(model[0].read_bytes() + b"x")
    assert stored(machine, [longer]).results == ()
    assert stored("another-machine", model).results == ()
    with pytest.raises(AssertionError):
        stored(machine, model)


def test_a_file_that_is_gone_is_an_error_of_ours(machine: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="absent"):
        stored(machine, [tmp_path / "absent.gguf"])


def test_what_an_earlier_version_kept_is_left_alone(machine: str, model: list[Path]) -> None:
    """It was found by machine and content, and did not say for which lengths it was."""
    path = keep(machine, model, CHAT, result())
    assert path is not None
    record = json.loads(path.read_text())
    for name in ("digest", "streams", "prompt_tokens", "output_tokens"):
        del record["payload"][0][name]
    old = path.with_name("0123456789abcdef.json")
    old.write_text(json.dumps({**record, "identity": old.stem}))
    path.unlink()
    assert stored(machine, model).results == stored(machine, model).findings == ()
    assert old.exists()


def test_what_changed_since_is_said(machine: str, model: list[Path]) -> None:
    keep(machine, model, CHAT, result())
    newer = outdated(only(machine, model), model, "b12000")
    assert newer is not None
    assert "b11549" in newer
    assert "b12000" in newer
    status = model[0].stat()
    os.utime(model[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert "anew" in str(outdated(only(machine, model), model, "b11549"))


HOSTILE: list[tuple[str, Any]] = [
    ("settings", {"context": -1, "parallel": 1, "threads": 1}),
    ("settings", {"context": 1, "parallel": 1, "threads": 1, "command": "rm"}),
    ("settings", []),
    ("settings", {"context": 10**30, "parallel": 1, "threads": 1}),
    ("gain", {"expected": 1, "low": 2, "high": 3}),
    ("gain", {"expected": "much", "low": 2, "high": 3}),
    ("reasons", [{"setting": "ubatch", "because": "\x1b[2J", "source": "measured"}]),
    ("reasons", [{"setting": "colour", "because": "it is red", "source": "measured"}]),
    ("reasons", 7),
    ("files", [["a"]]),
    ("workload", None),
    ("streams", -1),
    ("prompt_tokens", 10**30),
    ("output_tokens", "many"),
    ("digest", None),
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
    path = keep(machine, model, CHAT, result())
    assert path is not None
    record = json.loads(path.read_text())
    record["payload"][0][name] = value
    path.write_text(json.dumps(record))
    found = stored(machine, model)
    assert found.results == ()
    assert [finding.code for finding in found.findings] == ["tuned-unreadable"]
    keep(machine, model, CHAT, result())  # and is written over
    assert len(stored(machine, model).results) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"form": 1}', b"[" * 100_000]
)
def test_a_damaged_file_is_a_finding(machine: str, model: list[Path], content: bytes) -> None:
    path = keep(machine, model, CHAT, result())
    assert path is not None
    assert path.is_relative_to(data_folder() / TUNED)
    path.write_bytes(content)
    found = stored(machine, model)
    assert found.results == ()
    (finding,) = found.findings
    assert finding.code == "tuned-unreadable"
    assert "moestro tune" in str(finding.fix)


def test_a_damaged_curve_costs_the_curve_only(machine: str, model: list[Path]) -> None:
    path = keep(machine, model, CHAT, result())
    assert path is not None
    record = json.loads(path.read_text())
    record["payload"][0]["curve"] = [{"depth": "deep"}]
    path.write_text(json.dumps(record))
    assert only(machine, model).curve is None


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        ({}, {"settings": START, "gain": UNCHANGED, "complete": False}, True),
        ({}, {"settings": START, "gain": UNCHANGED}, False),  # it looked at everything
        ({}, {"confirmed": False}, True),
        ({"confirmed": False}, {"confirmed": False}, False),
        ({"confirmed": False}, {"settings": START, "gain": UNCHANGED, "complete": False}, True),
        ({"settings": START, "gain": UNCHANGED}, {"confirmed": False}, False),
        ({}, {"confirmed": False, "engine_version": "b2"}, False),  # the old one's is gone
    ],
)
def test_what_says_less_does_not_replace_what_says_more(
    machine: str, model: list[Path], old: dict[str, Any], new: dict[str, Any], stays: bool
) -> None:
    keep(machine, model, CHAT, result(**old))
    path = keep(machine, model, CHAT, result(spent_seconds=7.0, **new))
    assert (path is None) is stays
    assert (only(machine, model).spent_seconds == 7.0) is not stays


def test_what_was_fixed_is_kept_apart(machine: str, model: list[Path]) -> None:
    keep(machine, model, CHAT, result())
    keep(machine, model, CHAT, result(), frozenset({"threads", "no such setting"}))
    keep(machine, model, CHAT, result(), frozenset({"threads"}))
    first, second = stored(machine, model).results
    assert (first.fixed, second.fixed) == (frozenset({"threads"}), frozenset())
