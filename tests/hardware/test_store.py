from __future__ import annotations

import errno
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moestro import __version__
from moestro.errors import HardwareError
from moestro.hardware import store
from moestro.hardware.store import Stored, data_folder, load, save, stored_path, update


def test_what_is_kept_comes_back():
    assert load("kernels", "some-cpu-2c") == Stored()
    payload = {"q4_K": [1.5, None, "ä"], "n": 3}
    path = save("kernels", "some-cpu-2c", payload)
    found = load("kernels", "some-cpu-2c")
    assert found.payload == payload
    assert found.version == __version__
    assert found.finding is None
    assert found.saved_at is not None
    assert abs((datetime.now(UTC) - found.saved_at).total_seconds()) < 60
    assert os.listdir(path.parent) == [path.name]  # nothing temporary is left
    assert load("kernels", "another") == Stored()
    assert load("plans", "some-cpu-2c") == Stored()
    save("kernels", "some-cpu-2c", [])
    assert load("kernels", "some-cpu-2c").payload == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"form": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"form": 2, "kind": "k", "identity": "i", "saved_at": "2026-01-01T00:00:00",
                    "moestro": "9", "payload": 1}).encode(),
        json.dumps({"form": 1, "kind": "k", "identity": "other", "saved_at": "2026-01-01T00:00:00",
                    "moestro": "9", "payload": 1}).encode(),
        json.dumps({"form": 1, "kind": "k", "identity": "i", "saved_at": "yesterday",
                    "moestro": "9", "payload": 1}).encode(),
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_finding_and_is_replaced(content: bytes):
    path = stored_path("k", "i")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    found = load("k", "i")
    assert found.payload is None
    assert found.finding is not None
    assert found.finding.code == "stored-measurement-unreadable"
    assert str(path) in (found.finding.evidence or "")
    save("k", "i", 5)
    assert load("k", "i").payload == 5


def test_what_may_not_be_read_is_a_finding():
    path = stored_path("k", "i")
    path.mkdir(parents=True)  # a folder where the file should be
    assert load("k", "i").finding is not None


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk under .* is full"), (errno.EACCES, "denied")]
)
def test_what_cannot_be_written_is_one_sentence(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch
):
    save("k", "i", "old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(HardwareError, match=words) as caught:
        save("k", "i", "new")
    assert "MOESTRO_DATA" in (caught.value.hint or "")
    # What was there stays, and nothing half-written is left beside it.
    assert load("k", "i").payload == "old"
    assert os.listdir(stored_path("k", "i").parent) == ["i.json"]


def test_a_folder_that_is_a_file(data_folder: Path):
    data_folder.write_text("in the way")
    with pytest.raises(HardwareError):
        save("k", "i", 1)
    with pytest.raises(HardwareError):
        update("k", "i", lambda _: 1)
    assert load("k", "i").payload is None


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", ".hidden", "x" * 200])
def test_names_that_no_file_should_have(name: str):
    with pytest.raises(ValueError, match="not a name"):
        stored_path("k", name)
    with pytest.raises(ValueError, match="not a name"):
        stored_path(name, "i")


def test_what_json_cannot_hold_is_refused_before_anything_is_lost():
    save("k", "i", 1)
    with pytest.raises(ValueError, match="JSON"):
        save("k", "i", float("nan"))
    assert load("k", "i").payload == 1


def test_updates_at_once_lose_nothing():
    def add(number: int) -> None:
        update("k", "i", lambda old: [*(old or []), number])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load("k", "i").payload) == list(range(12))


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert data_folder() == Path(os.environ["MOESTRO_DATA"])
    monkeypatch.delenv("MOESTRO_DATA")
    monkeypatch.setattr(store.sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "moestro"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_folder() == Path.home() / ".local/share/moestro"
    monkeypatch.setattr(store.sys, "platform", "darwin")
    assert data_folder() == Path.home() / "Library/Application Support/moestro"
