"""The real child with the real kernels, measured far too briefly for the figures to mean much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moestro.engine.child import child_command, child_environment, parse_report
from moestro.engine.llama_cpp.calibrate import _Found, calibrate
from moestro.errors import EngineError
from moestro.planning.rates import KernelRates

SHAPE = (64, 64, "F16", "F16", 2)


@pytest.fixture(scope="module")
def measured() -> KernelRates:
    return calibrate(1, ["Q4_K"], [SHAPE], quick=True, patience_seconds=0.0)


def test_every_figure_is_there(measured: KernelRates) -> None:
    assert measured.has_common
    assert measured.device == "CPU"
    assert measured.threads == 1
    assert [(a.key, a.value, a.type_k, a.type_v, a.kv_heads) for a in measured.attention] == [SHAPE]
    assert KernelRates.from_json(measured.to_json()) == measured
    curves = [*measured.recurrent.values(), measured.attention[0].decode]
    kind = measured.types["Q4_K"]
    curves += [kind.dense, kind.dense_cached, kind.small, kind.experts, kind.experts_cached]
    for curve in curves:
        assert all(0 < seconds < 1e-4 for _, seconds in curve.points)
    assert kind.bytes_per_element == 144 / 256


def test_more_columns_take_longer(measured: KernelRates) -> None:
    dense = measured.types["Q4_K"].dense
    assert dense.at(128) > 3 * dense.at(1)


def test_only_what_is_asked_for_is_measured_and_the_rest_is_kept(measured: KernelRates) -> None:
    seen: list[str] = []
    more = calibrate(
        1, ["F32"], [], known=measured, quick=True, patience_seconds=0.0, progress=seen.append
    )
    assert seen == ["F32"]
    assert set(more.types) == {"Q4_K", "F32"}
    assert more.small == measured.small


def test_all_of_it_is_measured_anew_and_other_types_are_kept(measured: KernelRates) -> None:
    seen: list[str] = []
    disturbed = replace(measured, step=1.0, load=3.0)
    more = calibrate(
        1, ["F32"], [], known=disturbed, anew=True, quick=True, patience_seconds=0.0,
        progress=seen.append,
    )  # fmt: skip
    assert seen == ["small operations and the caches", "F32"]
    assert set(more.types) == {"Q4_K", "F32"}
    assert more.small != measured.small
    assert more.step < 1.0
    assert more.load != 3.0


def test_what_was_cut_short_does_not_replace_what_every_model_needs(measured: KernelRates) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    disturbed = replace(measured, load=3.0)
    kept = calibrate(1, ["F32"], [], known=disturbed, anew=True, quick=True, progress=interrupted)
    assert kept.has_common
    assert (kept.small, kept.load) == (measured.small, 3.0)


def test_the_load_so_far_is_kept_after_an_interrupt() -> None:
    def interrupted(what: str) -> None:
        if what == "F32":
            raise KeyboardInterrupt

    found = _Found(1)
    found.take({"event": "device", "name": "CPU", "description": "x"}, print)
    found.take({"event": "load", "load": 1.5, "spread": 0.02}, print)
    with pytest.raises(KeyboardInterrupt):
        found.take({"event": "begin", "what": "F32"}, interrupted)
    rates = found.rates()
    assert rates is not None
    assert (rates.load, rates.spread, rates.has_common) == (1.5, 0.02, False)


def test_the_child_tells_the_load_before_each_part() -> None:
    import json
    import os
    import subprocess

    request = {
        "threads": 1, "device": 0, "types": ["F32"], "attention": [], "common": True,
        "patience_seconds": 0.0, "rounds": 1, "quick": True,
    }  # fmt: skip
    done = subprocess.run(
        child_command("llama_cpp.calibration_child", json.dumps(request)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=child_environment(os.environ),
        check=True,
    )
    reports = [report for line in done.stdout.splitlines(True) if (report := parse_report(line))]
    events = [report["event"] for report in reports]
    assert events == ["device", *("load", "begin", "common"), *("load", "begin", "type"), "done"]


def test_an_interrupt_before_anything_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_line: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("moestro.engine.llama_cpp.calibrate.parse_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(1, ["F32"], [], quick=True)


def test_an_interrupt_keeps_what_was_measured(measured: KernelRates) -> None:
    def interrupted(what: str) -> None:
        if what == "Q8_0":
            raise KeyboardInterrupt

    wanted = ["F32", "Q8_0"]
    kept = calibrate(1, wanted, [], known=measured, quick=True, progress=interrupted)
    assert set(kept.types) == {"Q4_K", "F32"}


def test_figures_of_other_threads_are_not_kept(measured: KernelRates) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    fresh = calibrate(2, [], [], known=measured, quick=True, progress=interrupted)
    assert (fresh.threads, fresh.types, fresh.has_common) == (2, {}, False)


def test_a_child_that_dies_at_once_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.engine.llama_cpp.calibrate.child_command", lambda *_: ["false"])
    with pytest.raises(EngineError, match="before it had measured anything"):
        calibrate(1, ["F32"], [])
