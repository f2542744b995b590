from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from moestro.errors import HardwareError
from moestro.hardware.disk import Disk
from moestro.hardware.measure import disk as measuring
from moestro.hardware.measure.disk import measure_disk
from moestro.units import MIB


def test_a_disk_is_measured_and_left_as_it_was(tmp_path: Path):
    figures = measure_disk(tmp_path, size_bytes=64 * MIB, repetitions=2, seconds=0.1)
    sequential, random = figures
    assert (sequential.what, sequential.threads) == ("disk-sequential", 1)
    assert (random.what, random.threads) == ("disk-random", 8)
    for figure in figures:
        assert 0 < figure.low <= figure.bytes_per_second <= figure.high
        assert figure.size_bytes == 64 * MIB
        assert figure.block_bytes is not None
        assert figure.how
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_there_is_read_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Without O_DIRECT, as on tmpfs: the cache is dropped instead.
    monkeypatch.setattr(os, "O_DIRECT", 0, raising=False)
    path = tmp_path / "model"
    path.write_bytes(bytes(65 * MIB + 5))
    sequential, _ = measure_disk(tmp_path, file=path, repetitions=1, seconds=0.05)
    assert sequential.size_bytes == 65 * MIB
    assert "O_DIRECT" not in sequential.how
    assert path.stat().st_size == 65 * MIB + 5


def test_too_little_room_or_too_small_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = tmp_path / "small"
    small.write_bytes(b"x")
    with pytest.raises(HardwareError, match="too small"):
        measure_disk(tmp_path, file=small)
    monkeypatch.setattr(measuring, "disk_of", lambda _: Disk("x", free_bytes=100 * MIB))
    with pytest.raises(HardwareError, match="too little room"):
        measure_disk(tmp_path)


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "is full"), (errno.EIO, "could not")])
def test_a_disk_that_fails_leaves_nothing_behind(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(HardwareError, match=words):
        measure_disk(tmp_path, size_bytes=64 * MIB)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(HardwareError, match="could not be measured"):
        measure_disk(tmp_path / "none")


def test_a_file_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(HardwareError, match="ended early"):
        measure_disk(tmp_path, size_bytes=64 * MIB)
