"""`kill -9` of the owner: no engine may stay behind, whatever it is doing at that moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.engine.llama_cpp.processes import ends_within, is_running

OWNER = """
import asyncio, sys
from pathlib import Path
from moestro.engine import EngineRequest
from moestro.engine.llama_cpp.engine import LlamaCppEngine
from moestro.planning import Settings

async def main():
    settings = Settings(context=512, parallel=1, threads=1, gpu_layers=0)
    engine = LlamaCppEngine(EngineRequest(Path(sys.argv[1]), "tiny", settings))
    starting = asyncio.create_task(engine.start())
    while engine.pid is None:
        await asyncio.sleep(0.01)
    print(engine.pid, flush=True)
    await starting
    print("ready", flush=True)
    await engine.wait()

asyncio.run(main())
"""

# Holds the interpreter inside C, as the engine does while it loads: PyDLL keeps the lock.
STUBBORN = """
import ctypes, os, sys
sys.platform = {platform!r}
from moestro.engine.orphans import end_with_owner
os.read(0, 1)
end_with_owner(0)
print("armed", flush=True)
ctypes.PyDLL(None).sleep(100)
"""


def start_owner(model: Path) -> tuple[subprocess.Popen[str], int]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(model)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


def kill(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait()
    assert owner.stdout is not None
    owner.stdout.close()


def test_while_it_serves(tiny_dense: Path):
    owner, engine = start_owner(tiny_dense)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    assert is_running(engine)
    kill(owner)
    assert ends_within(engine, 5.0)


def test_while_it_loads(tmp_path: Path):
    """The engine blocks inside C for ever: it opens a named pipe that nobody writes to."""
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)
    owner, engine = start_owner(pipe)
    assert not ends_within(engine, 1.0)
    kill(owner)
    assert ends_within(engine, 5.0)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_at_any_moment_of_the_start(tiny_dense: Path, delay: float):
    owner, engine = start_owner(tiny_dense)
    ends_within(owner.pid, delay)
    kill(owner)
    assert ends_within(engine, 5.0)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_pipe_alone_ends_a_child_that_cannot_run_python(platform: str):
    """`darwin` takes the way without the kernel's parent-death signal."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STUBBORN.format(platform=platform))],
        stdin=reading,
        stdout=subprocess.PIPE,
    )
    os.close(reading)
    os.write(writing, b"\n")
    assert child.stdout is not None
    assert child.stdout.readline() == b"armed\n"
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    os.close(writing)
    assert child.wait(5.0) == signal.SIGIO
    child.stdout.close()


def test_an_owner_that_died_before_the_guard_was_set():
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STUBBORN.format(platform="darwin"))],
        input=b"\n",
        capture_output=True,
        timeout=30,
    )
    assert child.returncode == 0
    assert child.stdout == b""
