"""A compiled engine is tried before anybody relies on it: it starts, loads and answers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from moestro.engine.build.smoke_model import write_smoke_model
from moestro.engine.llama_server.guard import bound_to, server_environment
from moestro.engine.registry import Family
from moestro.errors import EngineStartFailed
from moestro.words import shown

_VERSION_SECONDS = 60.0
_ANSWER_SECONDS = 180.0  # a GPU build may compile its code for this GPU first
_MOST_BYTES = 1 << 20
_TOKENS = 8


# llama.cpp says what it is only when it is asked to say much; ik_llama.cpp always does.
_TALK: dict[Family, tuple[str, ...]] = {"llama.cpp": ("-lv", "4"), "ik_llama.cpp": ()}


def try_engine(program: Path, family: Family, *, gpu: bool = False) -> tuple[str, ...]:
    """Starts `program`, lets it answer with a model of random experts, and returns the instruction
    sets that it says it was compiled for. With `gpu` all layers go to the GPU.

    Raises:
        EngineStartFailed: it does not start, or it ends or stays silent instead of an answer.
    """
    _ask_version(program)
    with tempfile.TemporaryDirectory(prefix="moestro-try-") as name:
        model = write_smoke_model(Path(name) / "model.gguf")
        log = Path(name) / "log"
        port = _free_port()
        command = [
            str(program.absolute()), "-m", str(model), "--host", "127.0.0.1", "--port", str(port),
            "-c", "256", "-np", "1", "-t", "2", "-ngl", "99" if gpu else "0",
            *_TALK[family],
        ]  # fmt: skip
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=server_environment(os.environ),
                cwd=name,  # what it writes beside itself goes with the folder
                preexec_fn=bound_to(os.getpid()),
            )
            try:
                _answer(process, port, log)
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        return instruction_sets_in(_text(log))


def instruction_sets_in(log: str) -> tuple[str, ...]:
    """Names of `hardware.Cpu.instruction_sets` out of the line `system_info` of a server's log:
    `CPU : AVX = 1 | …` in llama.cpp's, `"AVX = 1 | …"` in ik_llama.cpp's."""
    from moestro.engine.llama_cpp.facts import parse_instruction_sets

    line = re.search(r"system_info\b[^\n]*", log)
    if line is None:
        return ()
    if "CPU : " in line[0]:  # other backends say something, too
        return parse_instruction_sets(line[0][line[0].index("CPU : ") :])
    words = re.search(r"\b[A-Z]\w+ = \d+ \|[^\"]*", line[0])
    return parse_instruction_sets(f"CPU : {words[0]}") if words else ()


def _ask_version(program: Path) -> None:
    try:
        done = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_VERSION_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _failed("it did not say its version in time", "") from error
    except OSError as error:
        raise _failed(f"it cannot be started: {error.strerror}", "") from error
    if done.returncode:
        said = (done.stdout + done.stderr)[-_MOST_BYTES:].decode(errors="replace")
        raise _failed(f"it {_end(done.returncode)} when asked for its version", said)


def _answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _ANSWER_SECONDS
    question = {"prompt": "Is it sound?", "n_predict": _TOKENS, "temperature": 0,
                "ignore_eos": True}  # fmt: skip
    ready = False
    while process.poll() is None and time.monotonic() < until:
        if not ready:
            ready = _http(port, "/health", None, 5.0)[0] == 200
            if not ready:
                time.sleep(0.1)
            continue
        status, said = _http(port, "/completion", question, max(1.0, until - time.monotonic()))
        if status == 200 and isinstance(said, dict) and "content" in said:
            return
        if status:
            raise _failed(f"it answered {status} to a prompt", _text(log))
        # Nobody answered: mostly it is about to be known that it ended.
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            continue
    if process.poll() is not None:
        when = "while it answered" if ready else "while it loaded a model"
        raise _failed(f"it {_end(process.returncode)} {when}", _text(log))
    raise _failed("it did not answer in time", _text(log))


def _http(port: int, path: str, question: Any, seconds: float) -> tuple[int, Any]:
    """Status and answer; status 0 where nobody answers."""
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=seconds) as reply:
            return reply.status, json.loads(reply.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except (OSError, ValueError):
        return 0, None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _text(log: Path) -> str:
    with log.open("rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace")


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    if -status == signal.SIGILL:
        return "used an instruction that this processor does not have"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"crashed ({name})"


def _failed(why: str, log: str) -> EngineStartFailed:
    return EngineStartFailed(
        f"The engine was compiled, but {why}; it is not installed.",
        hint="Use another engine, or build another version of it with --source.",
        code="engine-not-sound",
        log_tail=tuple(shown(line, 200) for line in log.splitlines()[-5:]),
    )
