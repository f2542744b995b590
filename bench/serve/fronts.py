"""What can stand between a client and an engine, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench.cache import cache_folder
from moestro.engine.registry import EngineInfo, engines

LITELLM = "1.102.4"
"""One that is known and installs today; 1.107.0 is said to have been compromised."""

START_SECONDS = 120.0


@dataclass(frozen=True)
class Front:
    """`pids` are the processes that do the carrying, none where the engine is asked directly.
    `engine` is where the engine behind it answers, for one that has an engine of its own."""

    url: str
    key: str = "none"
    pids: tuple[int, ...] = ()
    engine: str | None = None
    told: Mapping[str, Any] | None = None


@contextmanager
def process(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    log: Path | None = None,
    own_stdout: bool = True,
) -> Iterator[subprocess.Popen[str]]:
    """Ended with all its children on leaving. What it says on stdout is for us, if `own_stdout`."""
    with (log or Path(os.devnull)).open("w") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if own_stdout else errors,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            yield child
        finally:
            family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(True)]
            child.send_signal(signal.SIGINT)
            _, left = psutil.wait_procs(family, timeout=10)
            for one in left:
                one.kill()
            child.wait()


@contextmanager
def module(name: str, *arguments: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """A module of ours, and the line of JSON that it says when it is ready."""
    with process([sys.executable, "-m", name, *arguments]) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} did not start")
        yield child.pid, json.loads(line)


@contextmanager
def stub(events: int, gap_ms: float) -> Iterator[tuple[int, str]]:
    pacing = ("--events", str(events), "--gap-ms", str(gap_ms))
    with module("bench.serve.stub", *pacing) as (pid, told):
        yield pid, told["url"]


@contextmanager
def moestro_before(url: str) -> Iterator[Front]:
    with module("bench.serve.gateway", "stub", url) as (pid, told):
        yield Front(told["url"], told["secret"], (pid,))


@contextmanager
def moestro_up(model: str, streams: int, context: int) -> Iterator[Front]:
    """The gateway with an engine of its own, whose key is in what it told."""
    arguments = ("model", model, str(streams), str(context))
    with module("bench.serve.gateway", *arguments) as (pid, told):
        yield Front(told["url"], told["secret"], (pid,), told["engine"], told)


@contextmanager
def plain_proxy(url: str, key: str = "none") -> Iterator[Front]:
    with module("bench.serve.plain_proxy", url, key) as (pid, told):
        yield Front(told["url"], pids=(pid,))


@contextmanager
def litellm(url: str, key: str = "none") -> Iterator[Front]:
    """LiteLLM's proxy with one worker, as it comes: no database, no callbacks."""
    program = litellm_program()
    parameters = {"model": "openai/default", "api_base": f"{url}/v1", "api_key": key}
    config = {
        "model_list": [{"model_name": "default", "litellm_params": parameters}],
        "litellm_settings": {"telemetry": False},
    }
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "config.yaml")
        file.write_text(yaml.safe_dump(config))
        port = free_port()
        command = [str(program), "--config", str(file), "--host", "127.0.0.1"]
        more = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        log = cache_folder() / "litellm.log"
        with process(
            [*command, "--port", str(port), "--num_workers", "1"], more, log=log, own_stdout=False
        ) as child:
            front = f"http://127.0.0.1:{port}"
            wait_for(f"{front}/health/liveliness", child)
            inner = [one.pid for one in psutil.Process(child.pid).children(True)]
            yield Front(front, pids=(child.pid, *inner))


def litellm_program() -> Path:
    """Installed into an environment of its own when it is first asked for."""
    folder = cache_folder() / "litellm" / LITELLM
    program = folder / "bin" / "litellm"
    if not program.exists():
        print(f"installing LiteLLM {LITELLM}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        wanted = f"litellm[proxy]=={LITELLM}"
        subprocess.run(
            [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", wanted], check=True
        )
    return program


def llama_server() -> EngineInfo | None:
    """A llama-server of llama.cpp that moestro knows of; None where there is none."""
    known = (one for one in engines() if one.family == "llama.cpp" and one.program is not None)
    return next(known, None)


@contextmanager
def router_before_stub(program: Path, events: int, gap_ms: float) -> Iterator[Front]:
    """llama-server's router, and for its model our stub.

    The router starts its own program again for each model, by the path that it found for itself at
    its start. So it runs as a copy, whose place a script takes once it runs.
    """
    with tempfile.TemporaryDirectory() as name:
        copy, script = Path(name, "llama-server"), Path(name, "script")
        shutil.copy(program, copy)
        words = f'--events {events} --gap-ms {gap_ms} "$@"'
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench.serve.stub {words}\n')
        script.chmod(0o755)
        model = Path(__file__).parents[2] / "src" / "moestro" / "demo" / "moestro-demo.gguf"
        with router(copy, f"[default]\nmodel = {model}\n", before_load=(script, copy)) as front:
            yield front


@contextmanager
def router(
    program: Path, preset: str, before_load: tuple[Path, Path] | None = None
) -> Iterator[Front]:
    """llama-server's router with one model, `default`, loaded. `engine` is the model's process.
    `before_load`: a file that takes the place of another once the router runs."""
    with tempfile.TemporaryDirectory() as name:
        file, port = Path(name, "preset.ini"), free_port()
        file.write_text(preset)
        command = [str(program), "--models-preset", str(file), "--host", "127.0.0.1"]
        log = cache_folder() / "router.log"
        with process([*command, "--port", str(port)], log=log, own_stdout=False) as child:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health", child)
            if before_load is not None:
                os.replace(*before_load)
            _post(f"{url}/models/load", {"model": "default"})
            until = time.monotonic() + START_SECONDS
            while not _loaded(url):
                if time.monotonic() > until:
                    raise RuntimeError("the router did not load its model")
                time.sleep(0.1)
            (inner,) = psutil.Process(child.pid).children()
            (listening,) = (
                one.laddr.port for one in inner.net_connections() if one.status == "LISTEN"
            )
            yield Front(url, pids=(child.pid,), engine=f"http://127.0.0.1:{listening}")


def _loaded(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/models", timeout=10) as answer:
        (model,) = json.loads(answer.read())["data"]
    return bool(model["status"]["value"] == "loaded")


def _post(url: str, data: Mapping[str, Any]) -> None:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(data).encode(), headers)
    urllib.request.urlopen(request, timeout=START_SECONDS).close()


def child_of(pid: int) -> int:
    (child,) = psutil.Process(pid).children()
    return int(child.pid)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(url: str, child: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and child.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{url} does not answer; its words are in {cache_folder()}")
