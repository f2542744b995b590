"""`moestro bench`, from the command line to an endpoint that does what it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moestro.cli.load_options import SCENARIO_NAMES
from moestro.cli.loop_thread import LoopThread
from moestro.cli.main import main
from moestro.load import SCENARIOS
from tests.load.scripted import Endpoint, answering, endpoint

NOWHERE = "http://127.0.0.1:9"
FEW = ["--requests", "3", "--warmup", "0"]


@pytest.fixture
def place() -> Iterator[Endpoint]:
    timings = {"cache_n": 5, "draft_n": 4, "draft_n_accepted": 3}
    with LoopThread() as loop, loop.entered(endpoint(answering(4, timings=timings))) as found:
        yield found


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.cli.endpoint.DEFAULT_URL", NOWHERE)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("MOESTRO_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def found_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def test_help_knows_the_scenarios() -> None:
    assert list(SCENARIO_NAMES) == list(SCENARIOS)


def test_a_load_for_people(place: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--slo-ttft", "1h", "--slo-itl", "1h", "--slo-latency", "1h"]
    assert main(["bench", place.url, *FEW, *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"m at {place.url}\nsingle chat")
    assert "1 user, 3 requests in " in out
    assert "none failed" in out
    for words in ("time to first token", "between pieces (ITL)", "p99", "12 tokens",
                  "prompt tokens from a cache  50.0%", "75.0% of 12", "100.0% of all"):  # fmt: skip
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_one_object(place: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--scenario", "users", "--concurrency", "2", "--seed", "5", "--json"]
    assert main(["bench", place.url, *FEW, *arguments]) == 0
    data = found_json(capsys)
    assert (data["url"], data["model"], data["scenario"]) == (place.url, "m", "users")
    assert data["interrupted"] is False
    (run,) = data["runs"]
    assert (run["concurrency"], run["rate"], run["seed"]) == (2, None, 5)
    assert run["summary"]["requests"] == len(run["requests"]) == 3
    assert run["summary"]["acceptance"] == 0.75
    # The first two requests measured the tokenizer.
    assert [body["max_tokens"] for body in place.bodies] == [1, 1, 96, 96, 96]
    assert {body["model"] for body in place.bodies} == {"m"}


def test_options_reach_the_endpoint(place: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("MOESTRO_API_KEY", "mine")
    arguments = ["--random", "30,9", "--ignore-eos", "--model", "x", "--requests", "1"]
    assert main(["bench", place.url, *arguments]) == 0
    assert main(["bench", place.url, *arguments, "--api-key", "given"]) == 0
    body = place.bodies[-1]
    assert (body["model"], body["max_tokens"], body["ignore_eos"]) == ("x", 9, True)
    keys = [headers["Authorization"] for headers in place.headers]
    # Two to measure the tokenizer, a warm-up and the request; all of it twice.
    assert keys == ["Bearer mine"] * 4 + ["Bearer given"] * 4


def test_prompts_of_ones_own(place: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one"}\n{"prompt": "two", "max_tokens": 3}\n')
    assert main(["bench", place.url, "--prompts", str(path), "--requests", "2"]) == 0
    said = [body["messages"][0]["content"] for body in place.bodies]
    assert said[2:] == ["one", "two"]  # and no warm-up by one of them
    assert place.bodies[3]["max_tokens"] == 3


def test_a_sweep(place: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["--sweep", "1,2,4", "--slo-ttft", "1h", "--report", str(page)]
    assert main(["bench", place.url, *FEW, *arguments]) == 0
    out = capsys.readouterr().out
    lines = [line.split()[:2] for line in out.splitlines()]
    assert [line for line in lines if line and line[0] in "124"] == [
        ["1", "3"], ["2", "3"], ["4", "3"],
    ]  # fmt: skip
    assert max(map(len, out.splitlines())) <= 80
    assert f"The page is {page}." in out.replace("\n", "")
    text = page.read_text()
    assert "Throughput against concurrency" in text
    prompts = [str(body["messages"]) for body in place.bodies]
    assert len(set(prompts)) == len(prompts)


def test_an_open_loop(place: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", place.url, *FEW, "--rate", "200", "--arrivals", "constant"]) == 0
    assert "200 requests/s (constant), 3 requests" in capsys.readouterr().out


def test_nothing_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", NOWHERE]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().startswith(f"error: Nothing answers at {NOWHERE}.\nhint: ")


def test_requests_that_fail_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    count = 0

    async def moody(request: Any) -> Any:
        nonlocal count
        count += 1
        if count % 2 == 0:
            raise ConnectionResetError
        return await answering(2, usage={})(request)

    with LoopThread() as loop, loop.entered(endpoint(moody)) as place:
        assert main(["bench", place.url, "--requests", "4", "--warmup", "0"]) == 0
    out = capsys.readouterr().out
    assert "2 failed" in out
    assert "2 × " in out
    assert "does not count its tokens" in out


def test_no_answer_at_all_is_a_failure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    count = 0

    async def twice(request: Any) -> Any:
        nonlocal count
        count += 1
        if count > 2:
            raise ConnectionResetError
        return await answering(1)(request)

    page = tmp_path / "page.html"
    with LoopThread() as loop, loop.entered(endpoint(twice)) as place:
        arguments = ["--requests", "2", "--warmup", "0", "--report", str(page)]
        assert main(["bench", place.url, *arguments]) == 1
    assert "2 failed" in capsys.readouterr().out
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scenario", "chat", "--random", "1,1"], "--scenario and --random exclude"),
        (["--rate", "1", "--sweep", "1,2"], "--rate and --sweep exclude"),
        (["--arrivals", "constant"], "--arrivals belongs to --rate"),
        (["--random", "5"], "two numbers"),
        (["--random", "5,x"], "numbers from 1"),
        (["--sweep", "1,,2"], "numbers from 1"),
        (["--sweep", "0"], "numbers from 1"),
        (["--sweep", "99999"], "numbers from 1"),
        (["--sweep", "²"], "numbers from 1"),
        (["--sweep", ",".join(["1"] * 40)], "numbers from 1"),
        (["--duration", "0s"], "greater than zero"),
        (["--duration", "soon"], "not a duration"),
        (["--slo-itl", "0"], "--slo-itl must be"),
        (["--report", "page.pdf"], "written as HTML"),
        (["--prompts", "/nowhere.txt"], "cannot be read"),
        (["--api-key", "a\nb"], "API key"),
        (["--rate", "0"], "--rate"),
        (["--scenario", "cat"], "--scenario"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", NOWHERE, *arguments]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert words in err


def test_a_page_that_cannot_be_written_is_told_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", NOWHERE, "--report", str(tmp_path / "no" / "page.html")]) == 1
    assert "could not be written" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_learned() -> None:
    answered = 0

    async def slowing(request: Any) -> Any:
        nonlocal answered
        answered += 1
        if answered > 5:  # two to measure the tokenizer, and three requests
            process.send_signal(signal.SIGINT)
            return await answering(1000, pause=1.0)(request)
        return await answering(2)(request)

    with LoopThread() as loop, loop.entered(endpoint(slowing)) as place:
        command = [sys.executable, "-m", "moestro", "bench", place.url, "--warmup", "0", "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    data = json.loads(out)
    assert data["interrupted"] is True
    assert data["runs"][0]["summary"]["requests"] == 3
    assert "Traceback" not in err
