from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import uvloop

from moestro.engine import Engine, EngineRequest, EngineState, probe, process
from moestro.engine.llama_cpp.engine import LlamaCppEngine
from moestro.errors import EngineError, EngineStartFailed
from tests.engine.llama_cpp.conftest import SETTINGS, MakeEngine
from tests.engine.llama_cpp.processes import is_running, pause
from tests.smollm import smollm
from tests.tiny_models import write_tiny

START_SECONDS = 60.0


async def ask(engine: LlamaCppEngine, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    async with (
        aiohttp.ClientSession(engine.address, headers=headers) as session,
        session.post(path, json=body) as reply,
    ):
        return reply.status, await reply.json()


async def start_soon(engine: LlamaCppEngine) -> asyncio.Task[None]:
    """A start under way, with its process running."""
    starting = asyncio.create_task(engine.start())
    for _ in range(1000):
        await asyncio.sleep(0.01)
        if engine.pid is not None:
            break
    return starting


def before_props(monkeypatch: pytest.MonkeyPatch, hook: Callable[[], Awaitable[None]]) -> None:
    """Does something to the engine right before a start's last question to it."""

    async def get_json(port: int, path: str, api_key: str) -> tuple[int, Any]:
        if path == "/props":
            await hook()
        return await probe.get_json(port, path, api_key)

    monkeypatch.setattr(process, "get_json", get_json)


async def test_a_life_from_start_to_stop(make_engine: MakeEngine, tiny_moe: Path):
    engine = make_engine(tiny_moe)
    as_protocol: Engine = engine
    assert as_protocol.state is EngineState.STARTING
    assert engine.pid is None

    await engine.start(START_SECONDS)
    assert engine.state is EngineState.READY
    assert engine.started_seconds is not None
    assert engine.address.startswith("http://127.0.0.1:")
    pid = engine.pid
    assert pid is not None
    assert is_running(pid)

    status, reply = await ask(
        engine, "/v1/completions", {"prompt": "Hello", "max_tokens": 5, "ignore_eos": True}
    )
    assert status == 200
    assert reply["model"] == "tiny"
    assert reply["usage"]["completion_tokens"] == 5

    await engine.stop()
    assert engine.state is EngineState.STOPPED
    ended = await engine.wait()
    assert ended.sentence == "The engine was stopped."
    assert ended.signal == "SIGTERM"
    assert any("model loaded" in line for line in ended.log_tail)
    # Gone, not even a zombie: it was waited for.
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await engine.stop()  # does nothing


async def test_only_its_owner_may_ask(make_engine: MakeEngine, tiny_dense: Path):
    engine = make_engine(tiny_dense)
    await engine.start(START_SECONDS)
    async with aiohttp.ClientSession(engine.address) as session:
        assert (await session.get("/health")).status == 200
        assert (await session.get("/v1/models")).status == 401
        assert (await session.get("/metrics")).status == 401
    other = make_engine(tiny_dense)
    assert other.api_key != engine.api_key


@pytest.mark.parametrize(("context", "parallel"), [(1000, 3), (512, 1), (4096, 2)])
async def test_every_stream_gets_the_context_asked_for(
    make_engine: MakeEngine, tiny_dense: Path, context: int, parallel: int
):
    engine = make_engine(tiny_dense, context=context, parallel=parallel)
    await engine.start(START_SECONDS)
    assert engine.stream_context is not None
    assert context <= engine.stream_context < context + 256


async def test_a_context_beyond_training_is_told_not_hidden(
    make_engine: MakeEngine, tiny_dense: Path
):
    engine = make_engine(tiny_dense, context=8192, parallel=1)
    await engine.start(START_SECONDS)
    assert engine.stream_context == 4096


async def test_mtp_drafts(make_engine: MakeEngine, tiny_moe: Path):
    engine = make_engine(tiny_moe, mtp_depth=2)
    await engine.start(START_SECONDS)
    _, reply = await ask(engine, "/v1/completions", {"prompt": "Hello", "max_tokens": 16})
    assert reply["timings"]["draft_n"] > 0


async def test_without_mtp_nothing_drafts(make_engine: MakeEngine, tiny_moe: Path):
    engine = make_engine(tiny_moe, mtp_depth=0)
    await engine.start(START_SECONDS)
    _, reply = await ask(engine, "/v1/completions", {"prompt": "Hello", "max_tokens": 16})
    assert "draft_n" not in reply["timings"]


@pytest.mark.parametrize(("ubatch", "mtp_depth"), [(2, 0), (5, 3)])
async def test_a_micro_batch_smaller_than_the_streams(
    make_engine: MakeEngine, tiny_moe: Path, ubatch: int, mtp_depth: int
):
    engine = make_engine(tiny_moe, ubatch=ubatch, parallel=8, mtp_depth=mtp_depth)
    await engine.start(START_SECONDS)
    body = {"prompt": "Hello", "max_tokens": 4}
    replies = await asyncio.gather(*(ask(engine, "/v1/completions", body) for _ in range(8)))
    assert {status for status, _ in replies} == {200}


async def test_a_real_small_model(make_engine: MakeEngine):
    engine = make_engine(smollm(), context=1024, parallel=1)
    await engine.start(START_SECONDS)
    question = [{"role": "user", "content": "What is the capital of France? One word."}]
    body = {"messages": question, "max_tokens": 16, "temperature": 0}
    _, reply = await ask(engine, "/v1/chat/completions", body)
    assert "Paris" in reply["choices"][0]["message"]["content"]


async def test_a_refused_model_gives_a_sentence(make_engine: MakeEngine, tmp_path: Path):
    text = tmp_path / "notes.gguf"
    text.write_text("dear diary")
    engine = make_engine(text)
    with pytest.raises(EngineStartFailed) as caught:
        await engine.start(START_SECONDS)
    assert caught.value.sentence == "notes.gguf is not a GGUF file."
    assert caught.value.hint
    assert caught.value.log_tail == ()
    assert "log_tail" not in caught.value.to_json()
    assert engine.state is EngineState.FAILED
    assert (await engine.wait()).sentence == caught.value.sentence
    assert engine.log_tail()


async def test_declared_mtp_without_tensors(make_engine: MakeEngine, tmp_path: Path):
    """The engine aborts on this one."""
    broken = write_tiny("qwen35moe", tmp_path, skip=("blk.4.",))
    engine = make_engine(broken, mtp_depth=1)
    with pytest.raises(EngineStartFailed, match="lacks its tensors"):
        await engine.start(START_SECONDS)
    ended = await engine.wait()
    assert ended.signal == "SIGABRT"
    # No debugger was started for a backtrace, and no Python traceback is shown to anyone.
    assert not any("gdb" in line or "Traceback" in line for line in ended.log_tail)


async def test_missing_file(make_engine: MakeEngine, tmp_path: Path):
    with pytest.raises(EngineStartFailed, match=r"gone\.gguf could not be opened: No such file"):
        await make_engine(tmp_path / "gone.gguf").start(START_SECONDS)


async def test_a_stuck_load_ends_in_time(make_engine: MakeEngine, tmp_path: Path):
    """A named pipe nobody writes to: the engine waits inside C, holding the interpreter."""
    pipe = tmp_path / "slow-disk.gguf"
    os.mkfifo(pipe)
    engine = make_engine(pipe)
    with pytest.raises(EngineStartFailed, match=r"slow-disk\.gguf was not ready within 1 s"):
        await engine.start(1.0)
    assert engine.state is EngineState.FAILED
    assert engine.pid is not None
    assert not is_running(engine.pid)


async def test_stopped_while_it_starts(make_engine: MakeEngine, tmp_path: Path):
    pipe = tmp_path / "slow-disk.gguf"
    os.mkfifo(pipe)
    engine = make_engine(pipe)
    starting = await start_soon(engine)
    await engine.stop()
    with pytest.raises(EngineStartFailed, match="was stopped"):
        await starting
    assert engine.state is EngineState.STOPPED


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_a_stop_request_is_not_lost_while_the_process_is_made(
    tiny_dense: Path, run: Callable[..., Any], steps: int
):
    async def life() -> None:
        engine = LlamaCppEngine(EngineRequest(tiny_dense, "tiny", SETTINGS))
        starting = asyncio.create_task(engine.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        await engine.stop()
        gone = engine.pid is None or not psutil.pid_exists(engine.pid)
        (outcome,) = await asyncio.gather(starting, return_exceptions=True)
        state = engine.state
        await engine.stop()  # a lost request would leave the engine, and the loop could not end
        assert gone
        assert isinstance(outcome, EngineStartFailed)
        assert outcome.sentence == "The engine was stopped before it was ready."
        assert state is EngineState.STOPPED

    run(life())


async def test_stopped_at_the_last_step_of_the_start(
    make_engine: MakeEngine, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = make_engine(tiny_dense)
    stopping: list[asyncio.Task[None]] = []

    async def stop() -> None:
        stopping.append(asyncio.create_task(engine.stop()))
        await asyncio.sleep(0)

    before_props(monkeypatch, stop)
    with pytest.raises(EngineStartFailed, match="was stopped before it was ready"):
        await engine.start(START_SECONDS)
    await stopping[0]
    assert engine.state is EngineState.STOPPED


async def test_dead_at_the_last_step_of_the_start(
    make_engine: MakeEngine, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = make_engine(tiny_dense)

    async def kill() -> None:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await engine.wait()

    before_props(monkeypatch, kill)
    with pytest.raises(EngineStartFailed, match="SIGKILL"):
        await engine.start(START_SECONDS)
    assert engine.state is EngineState.FAILED


async def test_an_engine_that_pauses_is_asked_again(
    make_engine: MakeEngine, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = make_engine(tiny_dense)
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 0.3)
    asked = 0

    async def pause_once() -> None:
        nonlocal asked
        asked += 1
        assert engine.pid is not None
        if asked == 1:
            pause(engine.pid)
        else:
            os.kill(engine.pid, signal.SIGCONT)

    before_props(monkeypatch, pause_once)
    async with asyncio.timeout(START_SECONDS):
        await engine.start()
    assert asked > 1
    assert engine.stream_context == 512


async def test_a_start_that_waits_for_ever_can_be_cancelled(
    make_engine: MakeEngine, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = make_engine(tiny_dense)
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 0.1)
    asked_often = asyncio.Event()
    asked = 0

    async def pause_again() -> None:
        nonlocal asked
        asked += 1
        assert engine.pid is not None
        pause(engine.pid)
        if asked > 2:
            asked_often.set()

    before_props(monkeypatch, pause_again)
    starting = asyncio.create_task(engine.start())
    async with asyncio.timeout(START_SECONDS):
        await asked_often.wait()
    assert not starting.done()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert engine.pid is not None
    assert not is_running(engine.pid)


async def test_no_process_can_be_made(
    make_engine: MakeEngine, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    engine = make_engine(tiny_dense)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", no_pipe)
        with pytest.raises(EngineStartFailed, match="not be started: Too many open files"):
            await engine.start()
    assert engine.state is EngineState.FAILED
    await engine.stop()
    assert engine.state is EngineState.FAILED


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"threads": 100_000}, "The engine takes at most 512 for --threads, not 100,000."),
        (
            {"ubatch": 99_999_999_999},
            "The engine takes at most 2,147,483,647 for --ubatch, not 99,999,999,999.",
        ),
        ({"context": "many"}, "The engine does not take these settings: "),
    ],
)
async def test_settings_the_engine_cannot_take(
    make_engine: MakeEngine, tiny_dense: Path, settings: dict[str, Any], sentence: str
):
    engine = make_engine(tiny_dense, **settings)
    with pytest.raises(EngineStartFailed) as caught:
        await engine.start(START_SECONDS)
    assert caught.value.sentence.startswith(sentence)
    assert caught.value.hint
    assert (await engine.wait()).sentence == caught.value.sentence


async def test_a_file_name_that_is_no_text(make_engine: MakeEngine, tmp_path: Path):
    engine = make_engine(tmp_path / os.fsdecode(b"bad\xff.gguf"))
    with pytest.raises(EngineStartFailed, match="only names in UTF-8") as caught:
        await engine.start(START_SECONDS)
    assert r"bad\udcff.gguf” is not." in caught.value.sentence
    caught.value.sentence.encode()  # fit to be printed


async def test_a_crash_without_a_reason_shows_the_log(make_engine: MakeEngine, tmp_path: Path):
    pipe = tmp_path / "slow-disk.gguf"
    os.mkfifo(pipe)
    engine = make_engine(pipe)
    starting = await start_soon(engine)
    async with asyncio.timeout(START_SECONDS):
        while not engine.log_tail():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSEGV)
    with pytest.raises(EngineStartFailed, match=r"crashed \(SIGSEGV\)") as caught:
        await starting
    assert caught.value.log_tail
    assert caught.value.log_tail == engine.log_tail(20)
    assert caught.value.to_json()["log_tail"] == list(caught.value.log_tail)


async def test_cancelling_while_the_process_is_made(make_engine: MakeEngine, tiny_dense: Path):
    engine = make_engine(tiny_dense)
    before = set(psutil.Process().children())
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert engine.state is EngineState.FAILED
    _, alive = psutil.wait_procs(set(psutil.Process().children()) - before, timeout=5.0)
    assert not alive


async def test_cancelling_the_start_leaves_nothing(make_engine: MakeEngine, tmp_path: Path):
    pipe = tmp_path / "slow-disk.gguf"
    os.mkfifo(pipe)
    engine = make_engine(pipe)
    starting = await start_soon(engine)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert engine.pid is not None
    assert not is_running(engine.pid)


async def test_killed_at_start(make_engine: MakeEngine, tmp_path: Path):
    pipe = tmp_path / "slow-disk.gguf"
    os.mkfifo(pipe)
    engine = make_engine(pipe)
    starting = await start_soon(engine)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineStartFailed, match=r"killed from outside \(SIGKILL\)") as caught:
        await starting
    assert caught.value.hint is not None
    assert "memory" in caught.value.hint


async def test_killed_at_work_every_waiter_hears(make_engine: MakeEngine, tiny_dense: Path):
    engine = make_engine(tiny_dense)
    await engine.start(START_SECONDS)
    waiters = [asyncio.create_task(engine.wait()) for _ in range(3)]
    impatient = asyncio.create_task(engine.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(2.0):
        exits = await asyncio.gather(*waiters)
    assert {ended.signal for ended in exits} == {"SIGKILL"}
    assert engine.state is EngineState.FAILED


async def test_it_starts_once(make_engine: MakeEngine, tiny_dense: Path):
    engine = make_engine(tiny_dense)
    with pytest.raises(EngineError, match="no address"):
        _ = engine.address
    with pytest.raises(EngineError, match="not been started"):
        await engine.wait()
    await engine.start(START_SECONDS)
    with pytest.raises(EngineError, match="starts once"):
        await engine.start()


async def test_the_log_goes_to_a_file_as_well(
    make_engine: MakeEngine, tiny_dense: Path, tmp_path: Path
):
    file = tmp_path / "engine.log"
    engine = make_engine(tiny_dense, log_file=file)
    await engine.start(START_SECONDS)
    for _ in range(1000):  # a thread of the engine writes, in its own time
        if "model loaded" in file.read_text():
            break
        await asyncio.sleep(0.01)
    await engine.stop()
    assert "model loaded" in file.read_text()


async def test_files_in_the_working_directory_do_not_shadow_modules(
    make_engine: MakeEngine, tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    await make_engine(tiny_dense).start(START_SECONDS)


async def test_a_model_path_with_spaces_and_accents(
    make_engine: MakeEngine, tiny_dense: Path, tmp_path: Path
):
    odd = tmp_path / "modèle à moi.gguf"
    odd.symlink_to(tiny_dense)
    await make_engine(odd).start(START_SECONDS)


def test_on_uvloop(tiny_dense: Path):
    async def life() -> str:
        engine = LlamaCppEngine(EngineRequest(tiny_dense, "tiny", SETTINGS))
        await engine.start(START_SECONDS)
        await engine.stop()
        return (await engine.wait()).sentence

    assert uvloop.run(life()) == "The engine was stopped."


def test_ctrl_c_in_the_terminal_is_not_for_the_engine(tiny_dense: Path):
    async def group() -> tuple[int, int]:
        engine = LlamaCppEngine(EngineRequest(tiny_dense, "tiny", SETTINGS))
        await engine.start(START_SECONDS)
        assert engine.pid is not None
        groups = os.getpgrp(), os.getpgid(engine.pid)
        await engine.stop()
        return groups

    ours, its = asyncio.run(group())
    assert ours != its


def test_a_child_without_a_request_ends():
    from moestro.engine.child import child_command

    done = subprocess.run(
        child_command("llama_cpp.worker"), stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    )
    assert done.returncode == 0
    assert done.stdout == b""
