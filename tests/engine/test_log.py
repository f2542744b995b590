from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from moestro.engine.log import BoundedFile, EngineLog, WriterThread


def test_lines_are_put_together_from_pieces():
    log = EngineLog()
    log.feed(b"one\ntw")
    assert log.tail(10) == ("one",)
    log.feed(b"o\nthree")
    assert log.tail(10) == ("one", "two")
    log.close()
    assert log.tail(10) == ("one", "two", "three")


def test_only_the_last_lines_are_kept():
    log = EngineLog(lines=3)
    log.feed(b"".join(b"%d\n" % number for number in range(10)))
    assert log.tail(10) == ("7", "8", "9")
    assert log.tail(2) == ("8", "9")
    assert log.tail(0) == ()


def test_a_line_without_end_does_not_grow_for_ever():
    log = EngineLog(lines=2)
    for _ in range(100):
        log.feed(b"x" * 4096)
    assert sum(len(line) for line in log.tail(100)) < 100_000


def test_bytes_that_are_no_text():
    log = EngineLog()
    log.feed(b"\xff\xfe broken\n")
    assert log.tail(1)[0].endswith(" broken")


async def test_file_is_bounded(tmp_path: Path):
    file = tmp_path / "logs" / "engine.log"
    log = EngineLog(file=file, max_file_bytes=1000)
    for number in range(100):
        log.feed(b"%099d\n" % number)
    log.close()
    await log.written(10)
    old = file.with_name("engine.log.1")
    assert file.stat().st_size <= 1000
    assert old.stat().st_size <= 1000
    assert (old.read_text() + file.read_text()).splitlines()[-1] == f"{99:099d}"


def test_two_may_write_to_one_file(tmp_path: Path):
    file = tmp_path / "both.log"
    one, two = BoundedFile(file, 1000), BoundedFile(file, 1000)
    for number in range(200):
        assert (one, two)[number % 2].write(b"%09d\n" % number)
    assert file.stat().st_size <= 1000
    kept = (file.with_name("both.log.1").read_text() + file.read_text()).splitlines()
    assert [int(line) for line in kept] == list(range(200 - len(kept), 200))
    assert len(kept) > 100


def test_only_its_owner_reads_it(tmp_path: Path):
    file = tmp_path / "logs" / "engine.log"
    BoundedFile(file).write(b"x")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_full_disk_loses_lines_and_nothing_else():
    log = EngineLog(file=Path("/dev/full"))
    log.feed(b"one\n")
    assert log.tail(1) == ("one",)
    log.close()
    await log.written(10)


async def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    log = EngineLog(file=tmp_path / "file" / "engine.log")
    log.feed(b"one\n")
    assert log.tail(1) == ("one",)
    log.close()
    await log.written(10)


async def test_a_disk_that_stands_still_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    moves, asked = threading.Event(), threading.Event()
    write = BoundedFile.write

    def stands_still(self: BoundedFile, data: bytes) -> bool:
        asked.set()
        moves.wait(20)
        return write(self, data)

    monkeypatch.setattr(BoundedFile, "write", stands_still)
    log = EngineLog(file=tmp_path / "engine.log", lines=10)
    log.feed(b"first\n")
    assert asked.wait(10)
    line = b"x" * 9999 + b"\n"
    for _ in range(1000):  # more than is kept for it
        log.feed(line)
    assert log.tail(1) == (line.decode().strip(),)
    log.close()
    await log.written(0.05)
    assert not (tmp_path / "engine.log").exists()
    moves.set()
    await log.written(10)
    kept = (tmp_path / "engine.log").read_bytes()
    assert kept.startswith(b"first\n" + line)
    assert len(kept) < 500 * len(line)


def test_writing_is_not_more_often_than_needed():
    written: list[list[int]] = []
    writer: WriterThread[int] = WriterThread(written.append, 1000)
    for number in range(500):
        assert writer.put(number, 1)
    writer.close(10)
    assert [one for part in written for one in part] == list(range(500))
    assert len(written) <= 5


def test_what_is_written_makes_room():
    written: list[list[int]] = []
    writer: WriterThread[int] = WriterThread(written.append, 10)
    assert not writer.put(1, 11)
    for number in range(5):
        begun = time.monotonic()
        while not writer.put(number, 10):
            assert time.monotonic() - begun < 10
            time.sleep(0.01)
    writer.close(10)
    assert [one for part in written for one in part] == list(range(5))
