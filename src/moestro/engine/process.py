"""An engine as its owner sees it: a child process with a life, an address and a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from moestro.engine.child import (
    child_environment,
    failure_of,
    parse_report,
    request_to_json,
)
from moestro.engine.log import EngineLog
from moestro.engine.oom import oom_kills
from moestro.engine.probe import get_json
from moestro.engine.protocol import EngineExit, EngineRequest, EngineState
from moestro.engine.reasons import SHOWN_LOG_LINES, Reason, explain_exit, signal_of
from moestro.errors import EngineError, EngineOutOfMemory, EngineStartFailed

_HEALTH_INTERVAL_SECONDS = 0.05
_LOG_DRAIN_SECONDS = 1.0
_LOG_WRITE_SECONDS = 1.0
_EXIT_LOG_LINES = 50
_EXPLAIN_LOG_LINES = 200


class EngineProcess:
    """Implements `moestro.engine.Engine` for any server that a child of ours runs.

    `command` starts the child. It is told what to run by one line of JSON, the request, the secret
    and what `extra` holds; it says where it listens in a report (see `child`). A child that runs
    the server as a process of its own reports that one's `pid` as well.

    Use it from one event loop. Whatever happens to this process, the child ends with it.
    """

    def __init__(
        self,
        request: EngineRequest,
        command: Sequence[str],
        *,
        extra: Mapping[str, Any] | None = None,
        log_file: Path | None = None,
    ) -> None:
        self.request = request
        self._command = tuple(command)
        self._extra = dict(extra or {})
        self._api_key = secrets.token_urlsafe(32)
        self._log = EngineLog(file=log_file)
        self._state = EngineState.STARTING
        self._process: asyncio.subprocess.Process | None = None
        self._server_pid: int | None = None
        self._lifeline: BinaryIO | None = None
        self._address: str | None = None
        self._started_seconds: float | None = None
        self._stream_context: int | None = None
        self._takes: tuple[str, ...] = ("text",)
        self._begun = False
        self._oom_kills: int | None = None
        self._spawn_over = asyncio.Event()
        self._stop_wanted = False
        self._own_reason: Reason | None = None
        self._life: asyncio.Task[EngineExit] | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def pid(self) -> int | None:
        if self._server_pid is not None:
            return self._server_pid
        return self._process.pid if self._process is not None else None

    @property
    def address(self) -> str:
        if self._address is None:
            raise EngineError("The engine has no address before it is ready.")
        return self._address

    @property
    def api_key(self) -> str:
        return self._api_key

    @property
    def started_seconds(self) -> float | None:
        return self._started_seconds

    @property
    def stream_context(self) -> int | None:
        return self._stream_context

    @property
    def takes(self) -> tuple[str, ...]:
        return self._takes

    def log_tail(self, lines: int = 50) -> tuple[str, ...]:
        return self._log.tail(lines)

    async def start(self, timeout_seconds: float | None = None) -> None:
        if self._begun:
            raise EngineError("An engine starts once; make a new one.")
        self._begun = True
        self._oom_kills = oom_kills()
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._until_ready(await self._spawn())
        except TimeoutError as error:
            self._own_reason = Reason(
                f"{self.request.model.name} was not ready within {timeout_seconds:g} s.",
                "Allow more time for a large model or a slow disk; the last lines of the engine's "
                "log show how far it came.",
                log_helps=True,
            )
            await self._kill()
            raise self._start_failure(None) from error
        except BaseException:
            await self._kill()
            raise
        finally:
            self._end_without_life()
        # Nothing was awaited since the last look at the process, so it still lives.
        self._started_seconds = time.monotonic() - begun
        self._state = EngineState.READY

    async def wait(self) -> EngineExit:
        if self._life is None:
            raise EngineError("The engine has not been started.")
        # One waiter that gives up must not end the task that the others wait for.
        return await asyncio.shield(self._life)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        if self._life is not None and self._life.done():
            return
        # First of all, so that a start under way sees it at its next step.
        self._stop_wanted = True
        self._own_reason = Reason("The engine was stopped.")
        if self._begun:
            await self._spawn_over.wait()
        if self._process is None or self._life is None:
            self._end_without_life()
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        done, _ = await asyncio.wait({self._life}, timeout=grace_seconds)
        if not done:
            await self._kill()

    def _end_without_life(self) -> None:
        """The state of an engine that never had a process; `_live` knows that of any other."""
        self._spawn_over.set()
        if self._life is None and self._state is EngineState.STARTING:
            self._state = EngineState.STOPPED if self._stop_wanted else EngineState.FAILED

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._refuse_if_over(None)
        try:
            reading, writing = os.pipe()
        except OSError as error:
            raise _no_process(error) from error
        self._lifeline = os.fdopen(writing, "wb", buffering=0)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=reading,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment(os.environ),
                # Ctrl-C in a terminal is for the owner, which lets running requests finish.
                start_new_session=True,
            )
        except OSError as error:
            self._lifeline.close()
            raise _no_process(error) from error
        except BaseException:
            self._lifeline.close()  # a child that may have been born ends without its request
            raise
        finally:
            os.close(reading)
        self._process = process
        self._life = asyncio.create_task(self._live(process), name=f"engine {process.pid}")
        self._spawn_over.set()
        self._refuse_if_over(process)
        request = {**request_to_json(self.request), **self._extra, "api_key": self._api_key}
        with contextlib.suppress(BrokenPipeError):  # it died already; `_live` knows why
            self._lifeline.write(json.dumps(request).encode() + b"\n")
        return process

    async def _live(self, process: asyncio.subprocess.Process) -> EngineExit:
        """Follows the process to its end, however that comes, and says how it ended."""
        assert process.stderr is not None
        reading = asyncio.create_task(self._read_log(process.stderr))
        exit_code = await process.wait()
        # Something the engine started could hold the stream open for ever.
        await asyncio.wait({reading}, timeout=_LOG_DRAIN_SECONDS)
        reading.cancel()
        self._log.close()
        if self._lifeline is not None:
            self._lifeline.close()
        ended_by = signal_of(exit_code)
        self._state = EngineState.STOPPED if self._stop_wanted else EngineState.FAILED
        await self._log.written(_LOG_WRITE_SECONDS)
        reason = self._explain(exit_code)
        return EngineExit(
            sentence=reason.sentence,
            exit_code=exit_code,
            signal=ended_by.name if ended_by is not None else None,
            log_tail=self._log.tail(_EXIT_LOG_LINES),
            out_of_memory=ended_by is signal.SIGKILL and reason.memory,
        )

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(64 * 1024):
            self._log.feed(data)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        report = await self._first_report(process)
        if report is None:
            await self.wait()
            raise self._start_failure(process.returncode)
        self._refuse_if_over(process)
        if report["event"] == "failed":
            failure = failure_of(report)
            self._own_reason = Reason(failure.sentence, failure.hint)
            raise failure
        self._address = str(report["address"])
        self._server_pid = report.get("pid")
        port = urlsplit(self._address).port
        assert port is not None
        await self._ask(process, port, "/health", until=lambda status: status == 200)
        properties = await self._ask(process, port, "/props", until=lambda status: status != 0)
        self._stream_context = _stream_context(properties)
        self._takes = ("text", *_senses(properties))

    async def _ask(
        self,
        process: asyncio.subprocess.Process,
        port: int,
        path: str,
        *,
        until: Callable[[int], bool],
    ) -> Any:
        """The answer to `GET path`, asked again until its status will do or the engine is over."""
        while True:
            status, body = await get_json(port, path, self._api_key)
            self._refuse_if_over(process)
            if until(status):
                return body
            await asyncio.sleep(_HEALTH_INTERVAL_SECONDS)

    def _refuse_if_over(self, process: asyncio.subprocess.Process | None) -> None:
        """Ends a start whose engine is gone, or is asked to go."""
        ended = self._life is not None and self._life.done()
        if ended or self._stop_wanted:
            raise self._start_failure(process.returncode if process is not None else None)

    async def _first_report(self, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if (report := parse_report(line)) is not None:
                return report
        return None

    def _start_failure(self, exit_code: int | None) -> EngineStartFailed:
        if self._stop_wanted:
            return EngineStartFailed("The engine was stopped before it was ready.")
        reason = self._explain(exit_code)
        log_tail = self._log.tail(SHOWN_LOG_LINES) if reason.log_helps else ()
        kind = EngineOutOfMemory if reason.memory else EngineStartFailed
        return kind(reason.sentence, hint=reason.hint, log_tail=log_tail)

    def _explain(self, exit_code: int | None) -> Reason:
        """What this object did to the process itself explains more than its log."""
        before, now = self._oom_kills, oom_kills()
        return self._own_reason or explain_exit(
            self._log.tail(_EXPLAIN_LOG_LINES),
            exit_code,
            self.request.model.name,
            oom_killed=before is not None and now is not None and now > before,
        )

    async def _kill(self) -> None:
        if self._process is None or self._life is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS has none of the dead
            # It began a session, so its group is it and the server that it may have started.
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.wait({self._life})


def _no_process(error: OSError) -> EngineStartFailed:
    return EngineStartFailed(f"The engine process could not be started: {error.strerror}.")


def _stream_context(properties: Any) -> int | None:
    try:
        return int(properties["default_generation_settings"]["n_ctx"])
    except (KeyError, TypeError, ValueError):
        return None


_SENSES = {"vision": "image", "audio": "audio", "video": "video"}
"""The engine's words → those of the lists of models."""


def _senses(properties: Any) -> list[str]:
    known = properties.get("modalities") if isinstance(properties, dict) else None
    if not isinstance(known, dict):
        return []
    return [kind for sense, kind in _SENSES.items() if known.get(sense) is True]
