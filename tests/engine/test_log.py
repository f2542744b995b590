from __future__ import annotations

from pathlib import Path

from moestro.engine.log import EngineLog


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


def test_file_is_bounded(tmp_path: Path):
    file = tmp_path / "logs" / "engine.log"
    log = EngineLog(file=file, max_file_bytes=1000)
    for number in range(100):
        log.feed(b"%099d\n" % number)
    log.close()
    old = file.with_name("engine.log.1")
    assert file.stat().st_size <= 1000
    assert old.stat().st_size <= 1000
    assert (old.read_text() + file.read_text()).splitlines()[-1] == f"{99:099d}"
