"""`moestro up` as a whole process: what a person starts, calls, kills and gets wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import psutil
import pytest

from moestro.cli.up import _write_lines
from moestro.demo import model_path
from tests.smollm import smollm
from tests.tiny_models import write_tiny

START_SECONDS = 100
"""A guard against hanging, not a speed target."""

WORKER = "moestro.engine.llama_cpp.worker"
"""The embedded engine's process, as its command line ends."""


class Up:
    """A running `moestro up --json`."""

    def __init__(self, process: subprocess.Popen[str], report: dict[str, Any]) -> None:
        self.process = process
        self.report = report
        self.url: str = report["url"]
        self.root = self.url.removesuffix("/v1")
        self.engine_pid: int = report["engine"]["pid"]
        self._clients: list[openai.OpenAI] = []

    def client(self) -> openai.OpenAI:
        """Closed with the service: a client that is only forgotten leaves its socket open."""
        client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=60)
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()

    def health(self) -> httpx.Response:
        return httpx.get(f"{self.root}/health", timeout=5)


@contextmanager
def up(*arguments: str) -> Iterator[Up]:
    process = subprocess.Popen(
        [sys.executable, "-m", "moestro", "up", *arguments, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    guard = threading.Timer(START_SECONDS, process.kill)
    guard.start()
    try:
        line = process.stdout.readline()
        guard.cancel()
        if not line:
            pytest.fail(f"up ended before it was ready: {process.stderr.read()}")
        running = Up(process, json.loads(line))
        try:
            yield running
        finally:
            running.close_clients()
    finally:
        guard.cancel()
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def moestro(*arguments: str, timeout: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moestro", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


def until(condition: Any, seconds: float) -> float:
    """Waits for a condition and returns how long that took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            pytest.fail(f"it did not happen within {seconds} s")
        time.sleep(0.02)
    return time.monotonic() - begun


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def demo() -> Iterator[Up]:
    """`moestro up` without a model."""
    with up() as running:
        yield running


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen35moe", tmp_path_factory.mktemp("tiny"))


def test_report_follows_the_plan(demo: Up) -> None:
    report = demo.report
    assert report["model"] == "moestro-demo"
    assert Path(report["path"]) == model_path()
    assert report["first_token_seconds"] > 0
    assert report["settings"]["mtp_depth"] == 0
    assert {reason["setting"] for reason in report["reasons"]} <= set(report["settings"])
    assert report["plan"]["memory"][0]["weights_bytes"] > 0
    assert report["findings"] == []


def test_openai_client_lists_the_model(demo: Up) -> None:
    (model,) = demo.client().models.list().data
    assert model.id == "moestro-demo"
    assert demo.client().models.retrieve("moestro-demo").owned_by == "moestro"


def test_openai_client_streams_a_story(demo: Up) -> None:
    stream = demo.client().chat.completions.create(
        model="moestro-demo",
        messages=[{"role": "user", "content": "Tell me a short story."}],
        temperature=0,
        max_tokens=300,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces, finished, usage = [], None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finished = choice.finish_reason or finished
    story = "".join(pieces)
    assert sum(1 for piece in pieces if piece) > 10
    assert finished == "stop"
    assert usage is not None
    assert usage.completion_tokens > 30
    # Sentences of words, with an end.
    assert len(re.findall(r"[A-Z][^.!?]*[a-z][.!?]", story)) >= 3, story


def test_the_demo_model_adds(demo: Up) -> None:
    """Its card has the share of all ten thousand sums; these are every 499th of them."""
    client = demo.client()
    right = []
    pairs = [divmod(number, 100) for number in range(0, 10_000, 499)]
    for first, second in pairs:
        reply = client.chat.completions.create(
            model="moestro-demo",
            messages=[{"role": "user", "content": f"What is {first} + {second}?"}],
            temperature=0,
            max_tokens=40,
        )
        numbers = re.findall(r"\d+", reply.choices[0].message.content or "")
        right.append(numbers[-1:] == [str(first + second)])
    assert len(right) == 21
    assert sum(right) >= 19, dict(zip(pairs, right, strict=True))


def test_openai_client_gets_a_tool_call(demo: Up) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city."}},
                "required": ["city"],
            },
        },
    }
    reply = demo.client().chat.completions.create(
        model="moestro-demo",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[tool],
        temperature=0,
        max_tokens=120,
    )
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_mtp_drafts_and_changes_nothing_at_temperature_zero(demo: Up) -> None:
    question = {
        "messages": [{"role": "user", "content": "Tell me a short story."}],
        "temperature": 0,
        "max_tokens": 60,
    }
    plain = httpx.post(f"{demo.url}/chat/completions", json=question, timeout=60).json()
    with up("--mtp", "1") as drafting:
        drafted = httpx.post(f"{drafting.url}/chat/completions", json=question, timeout=60).json()
    assert drafted["timings"]["draft_n"] > 0
    assert drafted["timings"]["draft_n_accepted"] > 0
    said = [answer["choices"][0]["message"]["content"] for answer in (plain, drafted)]
    # Batched arithmetic may tip a near-tie; the first sentence has none.
    assert said[0][:40] == said[1][:40]


def test_a_second_real_model() -> None:
    """SmolLM2-135M-Instruct: another architecture, tokenizer and template, made elsewhere."""
    with up(str(smollm()), "--context", "2048", "--parallel", "1") as running:
        assert running.report["model"] == "SmolLM2-135M-Instruct.Q4_1"
        text = running.client().completions.create(
            model="default", prompt="The capital of France is", temperature=0, max_tokens=5
        )
        assert text.choices[0].text.startswith(" Paris")
        reply = running.client().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Tell me about the sun."}],
            temperature=0,
            max_tokens=40,
        )
        assert "star" in (reply.choices[0].message.content or "")


def test_run_starts_a_model_of_its_own_and_leaves_nothing(tiny: Path) -> None:
    done = moestro("run", "Hello", "--model", str(tiny), "--max-tokens", "5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"] == "tiny-qwen35moe"
    assert 1 <= answer["usage"]["completion_tokens"] <= 5
    assert done.stderr == f"Starting {tiny} for this call …\n"


def test_ctrl_c_during_an_own_answer_is_quiet(tiny: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "moestro", "run", "Hello", "--model", str(tiny), "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    guard = threading.Timer(START_SECONDS, process.kill)
    guard.start()
    engines: list[psutil.Process] = []

    def started() -> bool:
        children = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            engines[:] = [child for child in children if child.cmdline()[-1:] == [WORKER]]
        return bool(engines)

    until(started, START_SECONDS)  # before the first word: a short answer may be the whole one
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=50)
    guard.cancel()
    assert process.returncode in (0, 130)  # 0: the random model had just said its last word
    assert errors.decode() == f"Starting {tiny} for this call …\n"
    assert all(gone(engine.pid) for engine in engines)


def test_ctrl_c_ends_a_download_at_once() -> None:
    """A server that drips: the first bytes of a GGUF, then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reached = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000000\r\n"
                connection.sendall(head + b"Content-Range: bytes 0-999999/1000000\r\n\r\nGGUF")
                reached.set()
                connection.recv(4096)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/model.gguf"
        process = subprocess.Popen(
            [sys.executable, "-m", "moestro", "run", "Hello", "--model", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert reached.wait(START_SECONDS)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "Hi", "--url", "http://a..b"),
        ("up", "--host", "a..b"),
        ("up", "--threads", "99999999999"),
        ("inspect", "no\udcffsuch.gguf"),
    ],
)
def test_nonsense_is_answered_with_a_sentence(arguments: tuple[str, ...]) -> None:
    done = moestro(*arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "rror: " in done.stderr


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", "| true"])
def test_output_that_nobody_takes(tiny: Path, redirection: str) -> None:
    command = f"'{sys.executable}' -m moestro inspect '{tiny}' {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if "full" in redirection else 0)


def test_an_ascii_terminal_gets_question_marks(tiny: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moestro", "inspect", str(tiny)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert b"qwen35moe" in done.stdout


def test_no_engine_outlives_a_killed_parent(tiny: Path) -> None:
    with up(str(tiny)) as running:
        assert psutil.pid_exists(running.engine_pid)
        running.process.kill()
        until(lambda: gone(running.engine_pid), seconds=15)


def test_a_killed_engine_turns_health_red_and_costs_nobody_an_answer(tiny: Path) -> None:
    with up(str(tiny), "--parallel", "1") as running:
        assert running.health().status_code == 200
        lengths: list[int] = []

        def ask() -> None:
            answer = running.client().completions.create(
                model="default", prompt="x", max_tokens=400, extra_body={"ignore_eos": True}
            )
            assert answer.usage is not None
            lengths.append(answer.usage.completion_tokens)

        # Two are with the engine, the third waits for its turn.
        waiting = [threading.Thread(target=ask) for _ in range(3)]
        for thread in waiting:
            thread.start()
        time.sleep(0.2)
        os.kill(running.engine_pid, signal.SIGKILL)
        until(lambda: running.health().status_code == 503, seconds=2)
        until(lambda: running.health().status_code == 200, seconds=20)
        for thread in waiting:
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert lengths == [400] * 3
        assert gone(running.engine_pid)
        assert running.client().models.list().data[0].owned_by == "moestro"


def test_a_stop_leaves_nothing_behind(tiny: Path) -> None:
    with up(str(tiny)) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=50) == 0
        assert gone(running.engine_pid)


def test_what_becomes_of_the_first_engine_is_said_and_an_end_that_was_asked_for_is_not(
    tiny: Path,
) -> None:
    with up(str(tiny), "--unload-after", "1s") as running:
        until(lambda: gone(running.engine_pid), seconds=20)
        assert running.client().completions.create(model="default", prompt="x", max_tokens=4)
        running.process.send_signal(signal.SIGINT)
        _, said = running.process.communicate(timeout=50)
    told = [line.partition(":")[0] for line in said.splitlines()]
    # It may be idle for long enough again before the signal comes.
    assert told[:2] == ["engine 1 stopped", "engine 2 ready"], said
    assert "as asked" not in said


def test_what_a_person_sees(tiny: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "moestro", "up", str(tiny), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert process.stdout is not None
    lines = []
    guard = threading.Timer(START_SECONDS, process.kill)
    guard.start()
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("Ctrl-C"):
            break
    guard.cancel()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    text = "\n".join(lines)
    assert errors == ""
    assert max(len(line) for line in lines) <= 80, text
    for word in ("qwen35moe", "2 of 8 experts", "because", "/v1/chat/completions", "moestro chat"):
        assert word in text, text


@pytest.fixture
def wrong(tmp_path: Path, tiny: Path, request: pytest.FixtureRequest) -> str:
    """A MODEL that is wrong in the way that the test's parameter names."""
    kind = request.param
    path = tmp_path / f"{kind}.gguf"
    if kind == "text":
        path.write_text("This is not a model.\n" * 50, encoding="utf-8")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(tiny.read_bytes()[:-5000])
    elif kind == "split-part-missing":
        path = tmp_path / "model-00001-of-00003.gguf"
        path.write_bytes(tiny.read_bytes())
    elif kind == "mtp-tensors-missing":
        write_tiny("qwen35moe", tmp_path, filename=path.name, skip=("nextn", "blk.4."))
    elif kind == "gating-lost":
        write_tiny("deepseek2", tmp_path, filename=path.name, drop_keys=GATING_KEYS)
    return str(path)


GATING_KEYS = ("deepseek2.expert_gating_func",)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("absent", "model-not-found"),
        ("text", "not-a-model"),
        ("empty", "not-a-model"),
        ("truncated", "model-truncated"),
        ("split-part-missing", "model-part-missing"),
        ("mtp-tensors-missing", "mtp-tensors-missing"),
        ("gating-lost", "gating-function-lost"),
    ],
    indirect=["wrong"],
)
def test_a_wrong_model_is_one_sentence_and_a_hint(wrong: str, code: str) -> None:
    done = moestro("up", wrong, "--port", "0", "--json")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code, error
    assert error["message"].endswith((".", "!"))
    assert error["hint"]


def test_a_taken_port_is_said_before_the_model_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = moestro("up", "absent.gguf", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1
    assert "taken" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_too_much_context_is_refused_with_numbers() -> None:
    done = moestro("up", str(smollm()), "--context", "1000000000", "--port", "0")
    assert done.returncode == 1
    assert "does not fit" in done.stderr
    assert "GiB" in done.stderr


def test_contradictory_wishes_are_refused(tiny: Path) -> None:
    done = moestro("up", str(smollm()), "--mtp", "2", "--port", "0", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "mtp-absent"


def test_a_terminal_that_is_gone_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    _write_lines(["The engine was killed."])
