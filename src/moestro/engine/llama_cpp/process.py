"""An engine as its owner sees it: a child process with a life, an address and a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from moestro.engine.llama_cpp.child import (
    child_command,
    child_environment,
    parse_report,
    request_to_json,
)
from moestro.engine.llama_cpp.log import EngineLog
from moestro.engine.llama_cpp.probe import get_json
from moestro.engine.llama_cpp.reasons import Reason, explain_exit, signal_of
from moestro.engine.protocol import EngineExit, EngineRequest, EngineState
from moestro.errors import EngineError, EngineMismatch, EngineStartFailed

_HEALTH_INTERVAL_SECONDS = 0.05
_LOG_DRAIN_SECONDS = 1.0
_EXIT_LOG_LINES = 50
_EXPLAIN_LOG_LINES = 200


class LlamaCppEngine:
    """Implements `moestro.engine.Engine` with llama.cpp's own server in a child process.

    Use it from one event loop. Whatever happens to this process, the child ends with it.
    """

    def __init__(self, request: EngineRequest, *, log_file: Path | None = None) -> None:
        self.request = request
        self._api_key = secrets.token_urlsafe(32)
        self._log = EngineLog(file=log_file)
        self._state = EngineState.STARTING
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline: BinaryIO | None = None
        self._address: str | None = None
        self._started_seconds: float | None = None
        self._stream_context: int | None = None
        self._stop_wanted = False
        self._own_reason: Reason | None = None
        self._life: asyncio.Task[EngineExit] | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def pid(self) -> int | None:
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

    def log_tail(self, lines: int = 50) -> tuple[str, ...]:
        return self._log.tail(lines)

    async def start(self, timeout_seconds: float | None = None) -> None:
        if self._life is not None:
            raise EngineError("An engine starts once; make a new one.")
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout_seconds):
                process = await self._spawn()
                await self._until_ready(process)
        except TimeoutError as error:
            self._own_reason = Reason(
                f"{self.request.model.name} was not ready within {timeout_seconds:g} s.",
                "Allow more time for a large model or a slow disk; the log shows how far it came.",
            )
            await self._kill()
            raise self._start_failure(None) from error
        except BaseException:
            await self._kill()
            raise
        self._started_seconds = time.monotonic() - begun
        self._state = EngineState.READY

    async def wait(self) -> EngineExit:
        if self._life is None:
            raise EngineError("The engine has not been started.")
        # One waiter that gives up must not end the task that the others wait for.
        return await asyncio.shield(self._life)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        if self._process is None or self._life is None:
            return
        self._stop_wanted = True
        self._own_reason = Reason("The engine was stopped.")
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        done, _ = await asyncio.wait({self._life}, timeout=grace_seconds)
        if not done:
            await self._kill()

    async def _spawn(self) -> asyncio.subprocess.Process:
        reading, writing = os.pipe()
        self._lifeline = os.fdopen(writing, "wb", buffering=0)
        try:
            process = await asyncio.create_subprocess_exec(
                *child_command("worker"),
                stdin=reading,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment(os.environ),
                # Ctrl-C in a terminal is for the owner, which lets running requests finish.
                start_new_session=True,
            )
        except OSError as error:
            self._lifeline.close()
            raise EngineStartFailed(
                f"The engine process could not be started: {error.strerror}."
            ) from error
        finally:
            os.close(reading)
        self._process = process
        self._life = asyncio.create_task(self._live(process), name=f"engine {process.pid}")
        request = {**request_to_json(self.request), "api_key": self._api_key}
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
        return EngineExit(
            sentence=self._explain(exit_code).sentence,
            exit_code=exit_code,
            signal=ended_by.name if ended_by is not None else None,
            log_tail=self._log.tail(_EXIT_LOG_LINES),
        )

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(64 * 1024):
            self._log.feed(data)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        report = await self._first_report(process)
        if report is None:
            await self.wait()
            raise self._start_failure(process.returncode)
        if report["event"] == "failed":
            self._own_reason = Reason(str(report["message"]), report.get("hint"))
            raise EngineMismatch(self._own_reason.sentence, hint=self._own_reason.hint)
        self._address = str(report["address"])
        port = urlsplit(self._address).port
        assert port is not None
        while (await get_json(port, "/health", self._api_key))[0] != 200:
            if self._life is not None and self._life.done():
                raise self._start_failure(process.returncode)
            await asyncio.sleep(_HEALTH_INTERVAL_SECONDS)
        _, properties = await get_json(port, "/props", self._api_key)
        self._stream_context = _stream_context(properties)

    async def _first_report(self, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if (report := parse_report(line)) is not None:
                return report
        return None

    def _start_failure(self, exit_code: int | None) -> EngineStartFailed:
        reason = self._explain(exit_code)
        return EngineStartFailed(reason.sentence, hint=reason.hint)

    def _explain(self, exit_code: int | None) -> Reason:
        """What this object did to the process itself explains more than its log."""
        return self._own_reason or explain_exit(
            self._log.tail(_EXPLAIN_LOG_LINES), exit_code, self.request.model.name
        )

    async def _kill(self) -> None:
        if self._process is None or self._life is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.wait({self._life})


def _stream_context(properties: Any) -> int | None:
    try:
        return int(properties["default_generation_settings"]["n_ctx"])
    except (KeyError, TypeError, ValueError):
        return None
