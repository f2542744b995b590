"""A llama-server behind its guard, with a stand-in for the server: real processes, no model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from moestro.engine import Engine, EngineRequest, EngineState
from moestro.engine.child import SPIN
from moestro.engine.llama_server.engine import LlamaServerEngine
from moestro.engine.llama_server.guard import server_environment
from moestro.engine.llama_server.probe import probe
from moestro.engine.probe import get_json
from moestro.engine.start import make_engine
from moestro.errors import EngineStartFailed
from moestro.planning import Settings
from tests.engine.llama_cpp.processes import ends_within, is_running
from tests.engine.llama_server.fake import write_server
from tests.tiny_models import write_tiny

START_SECONDS = 30.0
Make = Callable[..., LlamaServerEngine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture
async def make(model: Path, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[LlamaServerEngine] = []

    def engine(family: str = "llama.cpp", behaviour: str = "serves", **changes: Any) -> Any:
        program = write_server(tmp_path, family=family, behaviour=behaviour)
        settings = Settings(context=512, parallel=2, threads=1, engine=str(program))
        request = EngineRequest(model, "a,name", replace(settings, **changes))
        made.append(LlamaServerEngine(request, probe(program)))
        return made[-1]

    yield engine
    for one in made:
        await one.stop(grace_seconds=0.5)


def told(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    return found


def key_is_there(tmp_path: Path) -> bool:
    return Path(told(tmp_path)["key_file"]).exists()


async def started(engine: LlamaServerEngine) -> int:
    await engine.start(START_SECONDS)
    assert engine.pid is not None
    return engine.pid


def guard_of(server: int) -> int:
    return psutil.Process(server).ppid()


async def test_a_life(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "7")
    monkeypatch.setenv("LLAMA_API_KEY", "open sesame")
    engine = make()
    as_protocol: Engine = engine
    pid = await started(engine)
    assert as_protocol.state is EngineState.READY
    assert as_protocol.stream_context == 768  # what /props says to whoever has the key
    said = told(tmp_path)
    assert said["pid"] == pid
    assert any("said on stdout" in line for line in engine.log_tail())

    arguments = said["arguments"]
    assert arguments[arguments.index("--alias") + 1] == "a_name"
    assert said["key"] == f"{engine.api_key}\n"
    assert said["key_mode"] == 0o600
    assert engine.api_key not in json.dumps([arguments, said["environment"]])
    assert not key_is_there(tmp_path)
    environment = said["environment"]
    assert not {"LLAMA_ARG_CTX_SIZE", "LLAMA_API_KEY"} & set(environment)
    assert environment["GGML_NO_BACKTRACE"] == "1"
    assert environment["GOMP_SPINCOUNT"] == SPIN

    guard = guard_of(pid)
    await engine.stop()
    assert engine.state is EngineState.STOPPED
    assert (await engine.wait()).sentence == "The engine was stopped."
    assert not is_running(pid)
    assert not is_running(guard)


def test_what_the_servers_environment_lacks() -> None:
    given = {"PATH": "p", "LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_CACHE": "c", "GGML_X": "y"}
    kept = {"PATH": "p", "GGML_X": "y", "XDG_CONFIG_HOME": os.devnull}
    assert server_environment({**given, "XDG_CONFIG_HOME": "/home/me"}) == kept


async def test_one_that_refuses_says_why(make: Make, tmp_path: Path) -> None:
    engine = make(behaviour="refuses")
    with pytest.raises(
        EngineStartFailed, match=r"llama\.cpp 7 .abc. says: .* it is blue"
    ) as caught:
        await engine.start(START_SECONDS)
    assert "engines list" in (caught.value.hint or "")
    assert (await engine.wait()).exit_code == 1
    assert not key_is_there(tmp_path)


async def test_one_that_never_listens(make: Make, tmp_path: Path) -> None:
    engine = make(behaviour="silent")
    starting = asyncio.create_task(engine.start(START_SECONDS))
    while not (tmp_path / "told.json").exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.01)
    server = told(tmp_path)["pid"]
    await engine.stop(grace_seconds=0.2)
    with pytest.raises(EngineStartFailed, match="stopped before it was ready"):
        await starting
    assert ends_within(server, 5)


async def test_a_crash_is_the_guards_end_too(make: Make) -> None:
    engine = make()
    await started(engine)
    await get_json(int(engine.address.rpartition(":")[2]), "/die", engine.api_key)
    ended = await engine.wait()
    assert engine.state is EngineState.FAILED
    assert (ended.signal, ended.exit_code) == ("SIGABRT", -signal.SIGABRT)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_guard_that_is_killed_leaves_no_server(make: Make) -> None:
    engine = make()
    pid = await started(engine)
    os.kill(guard_of(pid), signal.SIGKILL)
    assert ends_within(pid, 5)
    assert (await engine.wait()).signal == "SIGKILL"


async def test_a_guard_that_is_told_to_end_passes_it_on(make: Make) -> None:
    engine = make()
    pid = await started(engine)
    os.kill(guard_of(pid), signal.SIGTERM)
    assert (await engine.wait()).signal == "SIGTERM"
    assert not is_running(pid)


OWNER = """
import asyncio, sys
from pathlib import Path
from moestro.engine import EngineRequest
from moestro.engine.start import make_engine
from moestro.planning import Settings

async def main():
    settings = Settings(context=512, parallel=1, threads=1, engine=sys.argv[2])
    engine = make_engine(EngineRequest(Path(sys.argv[1]), "tiny", settings))
    await engine.start()
    print(engine.pid, flush=True)
    await engine.wait()

asyncio.run(main())
"""


def test_it_ends_with_its_owner(model: Path, tmp_path: Path) -> None:
    program = write_server(tmp_path)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(model), str(program)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    guard = guard_of(pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert ends_within(pid, 5)
    assert ends_within(guard, 5)


async def test_a_program_that_is_gone(make: Make, tmp_path: Path) -> None:
    engine = make()
    (tmp_path / "llama-server").unlink()
    with pytest.raises(EngineStartFailed, match="could not be started: No such file"):
        await engine.start(START_SECONDS)


def test_what_it_cannot_do_is_said_before_the_start(make: Make, tmp_path: Path) -> None:
    with pytest.raises(EngineStartFailed, match="cannot do this: a cache that all streams share"):
        make(family="ik_llama.cpp", unified=True)
    request = EngineRequest(Path("m"), "m", Settings(1, 1, 1, engine=str(tmp_path / "absent")))
    with pytest.raises(Exception, match="There is no llama-server at"):
        make_engine(request)


def test_synthetic_acceptance_is_no_setting_and_asked_for_too(make: Make, model: Path) -> None:
    engine = make(family="ik_llama.cpp")
    request = replace(engine.request, synthetic_acceptance=(0.5,))
    with pytest.raises(EngineStartFailed, match="synthetic acceptance"):
        LlamaServerEngine(request, engine._info)
