"""`moestro serve`, `status`, `stop` and `logs`, as a user or systemd would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from moestro.cli.services import key_for, registered, running
from tests.tiny_models import write_tiny

START_SECONDS = 60.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen35moe", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def moestro(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "moestro", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@dataclass
class Serving:
    """`events` are the lines on stderr so far, read as JSON."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]]

    def event(self, name: str, number: int = 1) -> dict[str, Any]:
        """The so-manieth event of that name, waited for."""
        named: list[dict[str, Any]] = []

        def there() -> bool:
            named[:] = [one for one in self.events if re.fullmatch(name, one["event"])]
            return len(named) >= number or self.process.poll() is not None

        until(there)
        assert len(named) >= number, self.events
        return named[number - 1]

    @property
    def url(self) -> str:
        return str(self.event("ready")["text"].split(" at ")[1])

    def engine_pid(self) -> int:
        children = psutil.Process(self.process.pid).children()
        return int(max(children, key=lambda child: child.create_time()).pid)

    def ask(self) -> str:
        with openai.OpenAI(api_key="none", base_url=self.url, max_retries=0) as client:
            answer = client.completions.create(
                model="default", prompt="x", max_tokens=3, extra_body={"ignore_eos": True}
            )
            return str(answer.choices[0].finish_reason)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "waited in vain"
        time.sleep(0.02)


@contextmanager
def serve(target: str, *arguments: str) -> Iterator[Serving]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "moestro", "serve", target, "--port", "0"),
            *("--log-format", "json", *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    serving = Serving(process, [])

    def read(lines: Any) -> None:
        for line in lines:
            serving.events.append(json.loads(line))

    reader = threading.Thread(target=read, args=(process.stderr,))
    reader.start()
    try:
        serving.event("ready")
        yield serving
    finally:
        process.kill()
        process.wait(timeout=30)
        reader.join(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
        process.stderr.close()


def plan_of(tiny: Path, path: Path, *arguments: str) -> None:
    done = moestro("plan", str(tiny), "--json", "--untuned", *arguments)
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout)


def curl(url: str, *arguments: str) -> str:
    command = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", *arguments, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_keys_shut_others_out_and_not_their_owner(tiny: Path) -> None:
    with serve(str(tiny)) as serving:
        models, admin = f"{serving.url}/models", serving.url.replace("/v1", "/admin/reload")
        assert curl(models) == "200"
        made = json.loads(moestro("keys", "create", "--scope", "admin", "--json").stdout)
        bearer = ("-H", f"Authorization: Bearer {made['secret']}")
        assert [curl(models), curl(models, *bearer)] == ["401", "403"]
        before = serving.engine_pid()
        assert curl(admin, "-X", "POST") == "401"
        assert curl(admin, "-X", "POST", *bearer) == "200"
        assert serving.engine_pid() != before

        status = moestro("status", "--json")
        (service,) = json.loads(status.stdout)["services"]
        assert service["health"]["model"]
        assert "key" not in service
        answer = moestro("run", "Hi", "--url", serving.url, "--max-tokens", "2")
        assert answer.returncode == 0, answer.stderr
        moestro("keys", "revoke", made["key"]["id"])
        assert curl(models) == "401"


def test_status_logs_and_stop(tiny: Path) -> None:
    nothing = moestro("status")
    assert nothing.returncode == 1
    assert "No service runs here" in nothing.stdout
    with serve(str(tiny), "--context", "512", "--parallel", "2") as serving:
        assert serving.ask() == "length"
        status = moestro("status", "--json")
        assert status.returncode == 0
        (service,) = json.loads(status.stdout)["services"]
        assert service["pid"] == serving.process.pid
        assert f"{service['url']}/v1" == serving.url
        assert (service["health"]["status"], service["health"]["restarts"]) == ("ready", 0)
        assert serving.url in moestro("status").stdout
        logs = moestro("logs").stdout
        assert "listening" in logs
        assert f"ready: {service['model']} at {serving.url}" in logs
        assert moestro("logs", "--lines", "1").stdout.count("\n") == 1
        stopped = moestro("stop", "--json")
        assert json.loads(stopped.stdout)["pid"] == serving.process.pid
        assert serving.process.wait(timeout=1) == 0
        assert serving.event("stopped")
        port = service["url"].rsplit(":", 1)[1]
    assert moestro("status").returncode == 1
    assert "ready: " in moestro("logs", "--port", port).stdout
    again = moestro("stop")
    assert again.returncode == 1
    assert "No service" in again.stderr


def test_requests_are_logged_if_asked_and_their_words_only_then(tiny: Path) -> None:
    for how, seen in (("off", False), ("figures", False), ("prompts", True)):
        with serve(str(tiny), "--context", "512", "--log-requests", how) as serving:
            assert serving.ask() == "length"
            if how != "off":
                told = serving.event("request")
                assert (told["route"], told["status"]) == ("/v1/completions", 200)
                assert (told["end"], told["answer_tokens"]) == ("length", 3)
                assert ("body" in told) is seen
            logs = moestro("logs").stdout
        assert ("/v1/completions 200 length" in logs) is (how != "off")
        assert ("ignore_eos" in logs) is seen


def test_a_log_that_nobody_reads_holds_up_nobody(tiny: Path) -> None:
    """A pipe takes 64 KiB; these requests write more."""
    command = [
        *(sys.executable, "-m", "moestro", "serve", str(tiny), "--port", "0"),
        *("--context", "512", "--log-requests", "prompts"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = ""
            while " at http" not in line:
                line = process.stderr.readline()
                assert line, "it ended"
            url = line.strip().split(" at ")[1]
            more = {"padding": "y" * 32_000}
            with openai.OpenAI(api_key="none", base_url=url, max_retries=0, timeout=30) as client:
                for _ in range(8):
                    client.completions.create(
                        model="default", prompt="x", max_tokens=1, extra_body=more
                    )
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_several_services_have_to_be_told_apart(tiny: Path) -> None:
    with serve(str(tiny), "--context", "512") as one, serve(str(tiny), "--context", "512") as two:
        assert len(json.loads(moestro("status", "--json").stdout)["services"]) == 2
        unclear = moestro("stop")
        assert unclear.returncode == 2
        assert "--port" in unclear.stderr
        port = two.url.split(":")[2].removesuffix("/v1")
        assert moestro("stop", "--port", port).returncode == 0
        assert two.process.wait(timeout=5) == 0
        assert one.ask() == "length"


def test_a_killed_service_is_not_listed(tiny: Path) -> None:
    with serve(str(tiny), "--context", "512") as serving:
        engine = serving.engine_pid()
        serving.process.kill()
        serving.process.wait(timeout=10)
        assert moestro("status").returncode == 1
        until(lambda: not psutil.pid_exists(engine))


def test_a_changed_plan_is_taken_up_at_a_sighup(tiny: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan_of(tiny, plan, "--context", "512", "--parallel", "1")
    with serve(str(plan)) as serving:
        first = serving.engine_pid()
        plan_of(tiny, plan, "--context", "512", "--parallel", "3")
        serving.process.send_signal(signal.SIGHUP)
        serving.event("engine 2 ready")
        serving.event("engine 1 stopped")
        until(lambda: not psutil.pid_exists(first))
        with openai.OpenAI(api_key="none", base_url=serving.url) as client:
            (model,) = client.models.list().data
        assert model.model_dump()["parallel"] == 3

        plan.write_text(plan.read_text()[:100])
        serving.process.send_signal(signal.SIGHUP)
        assert "not JSON" in serving.event("warning")["text"]
        assert serving.ask() == "length"
        os.kill(serving.engine_pid(), signal.SIGKILL)
        serving.event("engine 3 ready")
        assert serving.ask() == "length"


def test_systemd_is_told(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        with serve(str(tiny), "--context", "512") as serving:
            assert heard.recv(100).startswith(b"READY=1")
            serving.process.send_signal(signal.SIGTERM)
            assert heard.recv(100).startswith(b"STOPPING=1")
            assert serving.process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("content", "arguments", "status", "said"),
    [
        ("{}", (), 1, "not a plan"),
        ("{", (), 1, "not JSON"),
        ("{}", ("--context", "512"), 2, "settings already"),
        (None, (), 1, "could not be read"),
    ],
)
def test_what_is_no_plan_is_refused_in_a_sentence(
    tmp_path: Path, content: str | None, arguments: tuple[str, ...], status: int, said: str
) -> None:
    plan = tmp_path / "plan.json"
    if content is not None:
        plan.write_text(content)
    done = moestro("serve", str(plan), "--port", "0", *arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_record_that_is_damaged_or_another_process_s_counts_for_nothing(
    tiny: Path, data: Path
) -> None:
    folder = data / "services"
    with registered("http://127.0.0.1:1234", "m", "m", None, "secret", [tiny]) as renew:
        (mine,) = running()
        assert mine.holds(tiny)
        assert key_for("http://127.0.0.1:1234/v1") == "secret"
        assert key_for("http://localhost:1234/v1") is None, "that may be somebody else"
        renew("other", [tiny.parent])
        (mine,) = running()
        assert (mine.model, mine.holds(tiny)) == ("other", False)
        good = json.loads((folder / "1234.json").read_text())
        for wrong in (
            {"started_ticks": 1}, {"pid": -1}, {"pid": 1 << 80}, {"url": "http://h:99999"},
            {"files": None}, {"started_at": "x"},
        ):  # fmt: skip
            (folder / "1234.json").write_text(json.dumps(good | wrong))
            assert running() == []
        (folder / "1234.json").write_text("[" * 60_000)
        assert running() == []
    assert not running()


def test_what_is_served_is_not_removed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tiny.parent / "hub" / "models--one--two"
    snapshot, blob = hub / "snapshots" / "1", hub / "blobs" / "abc"
    snapshot.mkdir(parents=True)
    blob.parent.mkdir()
    shutil.copy(tiny, blob)
    for name in ("served.gguf", "mmproj-F16.gguf"):
        (snapshot / name).symlink_to(blob)
    monkeypatch.setenv("HF_HUB_CACHE", str(tiny.parent / "hub"))
    with registered("http://127.0.0.1:1234", "x", "x", None, "s", [snapshot / "served.gguf"]):
        for name in ("served", "mmproj-F16"):
            refused = moestro("models", "remove", name, "--yes")
            assert refused.returncode == 2
            assert "is served at http://127.0.0.1:1234" in refused.stderr
    assert moestro("models", "remove", "served", "--yes").returncode == 0
