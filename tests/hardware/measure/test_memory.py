from __future__ import annotations

import sys

import pytest

from moestro.errors import HardwareError
from moestro.hardware.measure import memory as measuring
from moestro.hardware.measure.memory import buffer_bytes, measure_memory
from moestro.hardware.measure.memory_worker import ABSENT, FILLING, copy_pass, read_pass
from moestro.units import GIB, MIB


def test_buffers_go_beyond_caches_and_leave_memory_free():
    assert buffer_bytes(1, 64 * GIB) == 512 * MIB
    assert buffer_bytes(64, 1024 * GIB) == 64 * MIB
    assert buffer_bytes(2, GIB) == 128 * MIB
    for threads in (1, 2, 8):
        assert threads * buffer_bytes(threads, 3 * GIB) <= 3 * GIB // 4
    with pytest.raises(HardwareError, match="Too little memory"):
        buffer_bytes(8, GIB // 2)


def test_passes_go_through_the_whole_buffer():
    buffer = bytearray(FILLING) * 1000
    assert read_pass(buffer) == 1000
    assert copy_pass(buffer) == 1000
    buffer[:500] = b"\x01" * 500
    copy_pass(buffer)
    assert buffer == b"\x01" * 1000
    buffer[999:] = ABSENT  # the search reaches the last byte
    with pytest.raises(AssertionError):
        read_pass(buffer)


def test_a_measurement_says_how_it_was_made():
    available_bytes = 4 * 2 * 32 * MIB  # the smallest buffers
    figures = measure_memory(2, available_bytes, repetitions=2, seconds=0.01)
    assert [(figure.what, figure.threads) for figure in figures] == [
        ("memory-read", 1),
        ("memory-copy", 1),
        ("memory-read", 2),
        ("memory-copy", 2),
    ]
    for figure in figures:
        assert 0 < figure.low <= figure.bytes_per_second <= figure.high
        assert figure.size_bytes == 64 * MIB
        assert figure.repetitions == 2
        assert figure.how


def test_one_core_is_measured_once():
    figures = measure_memory(1, 4 * 32 * MIB, repetitions=1, seconds=0.01)
    assert [figure.threads for figure in figures] == [1, 1]


@pytest.mark.parametrize("script", ["raise SystemExit(1)", "print('ready')", "print('ready', 1)"])
def test_a_process_that_ends_early_is_a_sentence(
    script: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
):
    from pathlib import Path

    worker = Path(str(tmp_path)) / "worker.py"
    worker.write_text(script)
    monkeypatch.setattr(measuring, "_WORKER", worker)
    with pytest.raises(HardwareError, match="ended early"):
        measure_memory(1, GIB, repetitions=1, seconds=0.01)


def test_no_python_to_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(HardwareError, match="could not be measured"):
        measure_memory(1, GIB, repetitions=1, seconds=0.01)
