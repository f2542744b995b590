"""`moestro run` and `moestro chat`, from the command line to a gateway before a stub engine."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from moestro.cli.loop_thread import LoopThread
from moestro.cli.main import main
from moestro.cli.services import registered
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.stub_engine import WORDS, StubEngine, maker_of, stub_request

NOWHERE = "http://127.0.0.1:9"
ANSWER = "".join(WORDS[:3])


@dataclass
class Place:
    url: str
    engine: StubEngine


@pytest.fixture
def place() -> Iterator[Place]:
    engine = StubEngine()
    service = Service(maker_of(engine), stub_request())
    with LoopThread() as loop, loop.entered(serving(service, bind(port=0))) as url:
        yield Place(url, engine)


@pytest.fixture(autouse=True)
def nothing_at_the_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestro.cli.endpoint.DEFAULT_URL", NOWHERE)


def asked(place: Place) -> dict[str, Any]:
    (request,) = place.engine.requests
    return request


# ---------------------------------------------------------------------------------------- run


def test_only_the_answer_goes_to_stdout(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "Hello", "--url", place.url]) == 0
    assert capsys.readouterr().out == ANSWER + "\n"
    assert asked(place)["messages"] == [{"role": "user", "content": "Hello"}]
    assert not {"temperature", "max_tokens"} & set(asked(place))


def test_options_reach_the_endpoint(place: Place) -> None:
    arguments = ["--max-tokens", "5", "--temperature", "0", "--seed", "7", "--system", "Be kind."]
    assert main(["run", "Hi", "--url", place.url, "--model", "default", *arguments]) == 0
    request = asked(place)
    assert (request["max_tokens"], request["temperature"], request["seed"]) == (5, 0, 7)
    assert request["model"] == "default"
    assert request["messages"][0] == {"role": "system", "content": "Be kind."}


def test_json_is_one_object(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "Hi", "--url", place.url, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == ANSWER
    assert result["url"] == place.url
    assert result["timings"]["time_to_first_token_seconds"] > 0
    assert {"model", "finish_reason", "usage", "reasoning"} <= set(result)


def test_a_dash_reads_the_prompt_from_stdin(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert main(["run", "-", "--url", place.url]) == 0
    assert asked(place)["messages"][0]["content"] == "two\nlines\n"


def test_an_empty_stdin_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    assert main(["run", "-", "--url", NOWHERE]) == 2
    assert "no prompt" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["run", "Hi"], ["chat"]])
def test_nothing_there_is_one_sentence(
    verb: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    assert main([*verb, "--url", NOWHERE]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: Nothing answers at {NOWHERE}.\nhint: ")
    assert "Traceback" not in captured.err


def test_an_unknown_model_is_refused_with_what_there_is(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "Hi", "--url", place.url, "--model", "gpt-4"]) == 1
    err = capsys.readouterr().err
    assert "gpt-4" in err
    assert "stub-model" in err


@pytest.mark.parametrize("verb", [["run", "Hi"], ["chat"]])
def test_an_engine_that_dies_leaves_the_beginning_and_an_error(
    place: Place,
    verb: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    place.engine.script = {"tokens": 5, "crash_after": 2, "lives": 9}
    assert main([*verb, "--url", place.url]) == 1
    captured = capsys.readouterr()
    assert captured.out == "".join(WORDS[:2]) + "\n"
    assert "crashed" in captured.err
    assert "Traceback" not in captured.err


def test_an_error_in_json_is_an_object_too(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.engine.script = {"tokens": 5, "crash_after": 2, "lives": 9}
    assert main(["run", "Hi", "--url", place.url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "request-crashes-engine"


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "moestro", *arguments], **options)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_stops_the_answer_and_keeps_what_came(place: Place, as_json: bool) -> None:
    place.engine.script = {"tokens": 10_000, "pause": 0.02}
    flags = ["--json"] if as_json else []
    process = start(
        "run", "Hi", "--url", place.url, *flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: place.engine.active == 1)
        time.sleep(0.3)  # a few tokens
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == b""
    text = json.loads(out)["text"] if as_json else out.decode()
    if as_json:
        assert json.loads(out)["finish_reason"] == "interrupted"
    else:
        assert text.endswith("\n")
    assert text.startswith(WORDS[0])
    wait_until(lambda: place.engine.active == 0)


def test_ctrl_c_before_the_first_token(place: Place) -> None:
    place.engine.script = {"hang": True}
    process = start("run", "Hi", "--url", place.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: place.engine.active == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    wait_until(lambda: place.engine.active == 0)


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# ------------------------------------------------------------------------- which endpoint


class Launches:
    """Stands for starting a model: remembers what was asked for and whether it was ended."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.models: list[str] = []
        self.running = 0

    def prepare(self, model: str, wishes: Any) -> str:
        self.models.append(model)
        return model

    @asynccontextmanager
    async def launched(
        self, prepared: str
    ) -> AsyncIterator[tuple[str, str, Callable[[int], tuple[str, ...]]]]:
        assert prepared == self.models[-1]
        self.running += 1
        try:
            yield self.url, "a-key", lambda _: ()
        finally:
            self.running -= 1


@pytest.fixture
def launches(place: Place, monkeypatch: pytest.MonkeyPatch) -> Launches:
    launches = Launches(place.url)
    monkeypatch.setattr("moestro.cli.launch.prepare", launches.prepare)
    monkeypatch.setattr("moestro.cli.launch.launched", launches.launched)
    return launches


@pytest.mark.parametrize(("flags", "model"), [([], "demo"), (["--model", "x.gguf"], "x.gguf")])
def test_without_an_endpoint_the_model_is_started_for_the_call(
    launches: Launches, flags: list[str], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "Hi", *flags]) == 0
    assert (launches.models, launches.running) == ([model], 0)
    captured = capsys.readouterr()
    assert captured.out == ANSWER + "\n"
    assert model in captured.err


@pytest.mark.parametrize(
    "flags", [[], ["--model", "stub-model"], ["--model", "/models/stub-file.gguf"]]
)
def test_an_endpoint_that_runs_and_serves_it_is_used(
    place: Place, launches: Launches, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.cli.endpoint.DEFAULT_URL", place.url)
    assert main(["run", "Hi", *flags]) == 0
    assert launches.models == []
    assert asked(place)["model"] == "stub-model"


def test_a_service_at_another_port_is_used_too(place: Place, launches: Launches) -> None:
    with registered(place.url, "stub-model", "stub", None, "key"):
        assert main(["run", "Hi"]) == 0
        assert launches.models == []
        assert asked(place)["model"] == "stub-model"
        assert main(["run", "Hi", "--model", "other.gguf"]) == 0
    assert launches.models == ["other.gguf"]


@pytest.mark.parametrize("model", ["other.gguf", "demo", "default"])
def test_an_endpoint_that_serves_another_model_is_left_alone(
    place: Place, launches: Launches, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.cli.endpoint.DEFAULT_URL", place.url)
    assert main(["run", "Hi", "--model", model]) == 0
    assert launches.models == [model]


# --------------------------------------------------------------------------------------- chat


def say(place: Place, lines: str, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    return main(["chat", "--url", place.url, *flags])


def test_a_conversation_has_a_memory(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(place, "one\n\ntwo\n", monkeypatch, "--system", "Be kind.") == 0
    assert capsys.readouterr().out == f"{ANSWER}\n{ANSWER}\n"
    first, second = place.engine.requests
    system = {"role": "system", "content": "Be kind."}
    one = {"role": "user", "content": "one"}
    assert first["messages"] == [system, one]
    assert second["messages"] == [
        system,
        one,
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "two"},
    ]


def test_reset_forgets_and_exit_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say(place, "one\n/reset\ntwo\n/exit\nthree\n", monkeypatch) == 0
    assert [request["messages"] for request in place.engine.requests] == [
        [{"role": "user", "content": "one"}],
        [{"role": "user", "content": "two"}],
    ]


def test_an_unknown_command_is_not_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(place, "/rest\n/help\n", monkeypatch) == 0
    assert place.engine.requests == []
    assert "/reset" in capsys.readouterr().err


class Terminal:
    """`moestro chat` in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
        self.process = start(
            "chat", *arguments, stdin=slave, stdout=slave, stderr=slave, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def shows(self, text: str, seconds: float) -> bool:
        """Whether `text` appears in this time after what was expected before."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            if not ready:
                return False
            try:
                self.seen += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # the other side is closed
                return text in self.seen
        return True

    def expect(self, text: str, seconds: float = 60) -> None:
        """Waits until `text` appears after what was expected before."""
        assert self.shows(text, seconds), f"waited for {text!r} and saw {self.seen!r}"
        self.seen = self.seen.split(text, 1)[1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(place: Place) -> Iterator[Terminal]:
    terminal = Terminal("--url", place.url)
    yield terminal
    terminal.close()


def test_chat_in_a_terminal(place: Place, terminal: Terminal) -> None:
    terminal.expect("/exit")
    terminal.expect("> ")
    terminal.type("Hello\r")
    terminal.expect(WORDS[2])
    terminal.expect("> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.process.wait(timeout=50) == 0


def test_ctrl_c_in_a_terminal_stops_an_answer_and_not_the_conversation(
    place: Place, terminal: Terminal
) -> None:
    place.engine.script = {"tokens": 10_000, "pause": 0.02}
    terminal.expect("> ")
    terminal.type("first\r")
    terminal.expect(WORDS[1])
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.expect("> ")
    wait_until(lambda: place.engine.active == 0)
    # At the prompt: a reminder. Between the prompt and its wait for a key readline is deaf.
    os.kill(terminal.process.pid, signal.SIGINT)
    while not terminal.shows("Ctrl-D", 5):
        os.kill(terminal.process.pid, signal.SIGINT)
    terminal.expect("Ctrl-D")
    terminal.expect("> ")
    place.engine.script = {}
    terminal.type("second\r")
    terminal.expect(WORDS[2])
    terminal.type("/exit\r")
    assert terminal.process.wait(timeout=50) == 0
    # What was stopped is part of the conversation as far as it came.
    roles = [message["role"] for message in place.engine.requests[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert place.engine.requests[1]["messages"][1]["content"].startswith(WORDS[0])


def test_an_error_in_a_terminal_does_not_end_the_conversation(
    place: Place, terminal: Terminal
) -> None:
    place.engine.script = {"status": 400, "body": '{"error": {"message": "too long"}}'}
    terminal.expect("> ")
    terminal.type("first\r")
    terminal.expect("error: too long")
    terminal.expect("> ")
    place.engine.script = {}
    terminal.type("second\r")
    terminal.expect(WORDS[2])
    assert place.engine.requests[1]["messages"] == [{"role": "user", "content": "second"}]


def test_a_model_cannot_steer_the_terminal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "a\x1b]0;title\x07b\x9b2Jc\ttab\n"
    monkeypatch.setattr("tests.gateway.stub_engine.WORDS", (evil,))
    terminal = Terminal("--url", place.url)
    terminal.expect("> ")
    terminal.type("Hi\r")
    terminal.expect("a]0;titleb2Jc")
    terminal.expect("> ")
    terminal.close()
