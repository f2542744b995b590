"""The page of a load: whole, by itself, and safe whatever an endpoint calls its model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moestro.cli import bench_page
from moestro.cli.bench_figures import percent, span
from moestro.cli.bench_page import page_of, write_page
from moestro.cli.benching import Bench, Run
from moestro.cli.show_bench import show_bench
from moestro.load import SCENARIOS, Energy, Load, LoadResult, RequestRecord, Slo, summarise
from tests.cli.test_verify_page import read

HOSTILE = '<script>alert("x")</script>\x1b[2J'


def record(number: int, **given: Any) -> RequestRecord:
    sent = number * 0.5
    fields = {
        "session": number, "turn": 0, "due": sent, "sent": sent,
        "piece_times": tuple(sent + 0.2 + 0.01 * n * (1 + number / 50) for n in range(20)),
        "ended": sent + 0.5, "prompt_tokens": 100, "cached_tokens": 20, "output_tokens": 20,
        "drafted": 30, "accepted": 12,
    } | given  # fmt: skip
    return RequestRecord(**fields)


def run(users: int, count: int = 30, **given: Any) -> Run:
    load = Load(SCENARIOS["users"], requests=count, concurrency=users)
    records = tuple(record(number, **given) for number in range(count))
    result = LoadResult("users", 0, users, None, count * 0.5, records, Energy(30.0, None))
    return Run(load, result, summarise(result, Slo(0.3), acceptance_by_position=[0.7, 0.3]))


def bench(*runs: Run, **given: Any) -> Bench:
    fields = {
        "url": "http://127.0.0.1:1", "model": "model", "scenario": SCENARIOS["users"],
        "characters_per_token": 4.0, "runs": runs, "interrupted": False,
    } | given  # fmt: skip
    return Bench(**fields)


@pytest.fixture
def slim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, whose 5 MB take a while to parse."""
    whole = bench_page.drawn
    monkeypatch.setattr(bench_page, "drawn", lambda figure, first: whole(figure, first=False))


def printed(found: Bench, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    try:
        show_bench(found, console)
        return console.export_text()
    finally:
        console.file.close()


def test_the_page_of_one_load(slim: None) -> None:
    page = read(page_of(bench(run(4))))
    text = " ".join(page.words)
    for words in ("Time to first token", "Time between pieces", "Latency over time",
                  "4 users at once, 30 requests", "70.0% 30.0%", "J per output token"):  # fmt: skip
        assert words in text
    assert page.tags["figure"] == 3
    assert "Throughput against concurrency" not in text


def test_the_page_of_a_sweep(slim: None) -> None:
    page = read(page_of(bench(run(1), run(32))))
    text = " ".join(page.words)
    assert "Throughput against concurrency" in text
    assert "Latency against concurrency" in text
    assert page.tags["figure"] == 2 + 2 * 3


def test_the_page_brings_its_library_once(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(bench(run(1), run(2)), path)
    text = path.read_text()
    assert text.count("plotly.js v") == 1
    assert "<script src" not in text


def test_what_an_endpoint_says_is_text(slim: None) -> None:
    broken = replace(record(0), error=HOSTILE, error_code="x")
    result = LoadResult("users", 0, 1, None, 1.0, (record(1), broken), lost=HOSTILE)
    one = Run(Load(SCENARIOS["users"], requests=2), result, summarise(result))
    found = bench(one, model=HOSTILE, url="http://host/" + "a" * 300, interrupted=True)
    page = read(page_of(found))
    assert not any("alert" in script for script in page.scripts)
    text = printed(found)
    assert "\x1b" not in text
    assert "Interrupted" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "given",
    [
        {"piece_times": ()},
        {"piece_times": (1.0,)},
        {"piece_times": (1.0,) * 20},
        {"prompt_tokens": None, "output_tokens": None, "cached_tokens": None, "drafted": None},
    ],
    ids=str,
)
def test_loads_of_which_little_is_known(slim: None, given: dict[str, Any]) -> None:
    for found in (bench(run(1, 2, **given)), bench(run(1, 1, **given), run(2, 1, **given))):
        read(page_of(found))
        assert printed(found)


def test_a_load_that_nobody_answered(slim: None) -> None:
    found = bench(run(1, 3, error="No."), run(2, 3, error="No."))
    page = " ".join(read(page_of(found)).words)
    assert "6 × No." in page
    assert "6 × No." in printed(found)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "?"), (0, "0 ms"), (0.00042, "0.42 ms"), (0.0456, "45.6 ms"), (0.123, "123 ms"),
     (0.9996, "1.00 s"), (12.345, "12.35 s"), (123.4, "123 s")],
)  # fmt: skip
def test_durations(seconds: float | None, words: str) -> None:
    assert span(seconds) == words
    assert percent(0.5) == "50.0%"
