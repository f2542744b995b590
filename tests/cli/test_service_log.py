from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from moestro.cli.service_log import FaultHandler, ServiceLog
from moestro.engine.log import BoundedFile


def test_a_line_each_and_in_the_file_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ServiceLog(as_json=False)
    log.file = BoundedFile(tmp_path / "log")
    log.say("ready", "demo at http://127.0.0.1:1/v1")
    log.warn("evil \x1b[2J")
    log.close()
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" ready: demo at http://127.0.0.1:1/v1")
    assert "\x1b" not in second
    kept = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in kept] == [
        "moestro " + line.split(" ", 1)[1] for line in (first, second)
    ]


def test_what_libraries_say_and_faults_are_in_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ServiceLog(as_json=True)
    logger = logging.getLogger("some.library")
    monkeypatch.setattr(logger, "propagate", False)
    handler = FaultHandler(log)
    logger.addHandler(handler)
    try:
        logger.info("chatter")
        logger.warning("%s is odd", "this")
        logger.warning("%d", "no number")
        try:
            raise ValueError("a fault")
        except ValueError:
            logger.exception("could not")
        logger.error("nothing was raised", exc_info=True)
    finally:
        logger.removeHandler(handler)
    log.close()
    odd, wrong, fault, plain = map(json.loads, capsys.readouterr().err.splitlines())
    assert (odd["event"], odd["text"]) == ("fault", "some.library: this is odd")
    assert wrong["text"] == "some.library: %d"
    assert fault["text"].startswith("some.library: could not\n    Traceback")
    assert fault["text"].endswith("ValueError: a fault")
    assert plain["text"] == "some.library: nothing was raised"


def test_lines_that_nobody_reads_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("moestro.cli.service_log.MOST_WAITING", 1000)
    log = ServiceLog(as_json=True)
    for _ in range(3):
        log.say("event", "x" * 2000)
    log.say("event", "short")
    log.say("event", "shorter")
    log.close()
    said = [json.loads(line)["text"] for line in capsys.readouterr().err.splitlines()]
    assert said == ["short (before it 3 lines were left out: nobody read them)", "shorter"]
