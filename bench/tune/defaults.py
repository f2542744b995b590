"""llama-server as most people start it: no flags but the model and the port. The peer to beat."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from pathlib import Path

import aiohttp

from moestro.engine.log import EngineLog
from moestro.engine.protocol import EngineExit, EngineRequest, EngineState
from moestro.errors import EngineStartFailed

READY_SECONDS = 300.0


class DefaultServer:
    """Follows `moestro.engine.Engine`; of the request only model and name count.

    `--fit on` is what this release does anyway; it is said, so that nobody has to believe it.
    """

    def __init__(self, program: Path, request: EngineRequest) -> None:
        self._program = program
        self._request = request
        self._log = EngineLog()
        self._process: asyncio.subprocess.Process | None = None
        self._following: list[asyncio.Task[None]] = []
        self.state = EngineState.STARTING
        self.api_key = secrets.token_hex(16)
        self.address = ""
        self.stream_context: int | None = None
        self.takes: tuple[str, ...] = ("text",)
        self.started_seconds: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self, timeout_seconds: float | None = None) -> None:
        began = time.monotonic()
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._process = await asyncio.create_subprocess_exec(
            self._program, "--model", self._request.model, "--alias", self._request.name,
            "--fit", "on", "--host", "127.0.0.1", "--port", str(port), "--no-ui",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LLAMA_API_KEY": self.api_key},
        )  # fmt: skip
        self._following = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]
        deadline = began + (timeout_seconds or READY_SECONDS)
        async with aiohttp.ClientSession() as client:
            while time.monotonic() < deadline:
                if self._process.returncode is not None:
                    raise EngineStartFailed(f"llama-server ended: {self._log.tail(3)}")
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"{self.address}/health") as response:
                        if response.status == 200:
                            self.state = EngineState.READY
                            self.started_seconds = time.monotonic() - began
                            return
                await asyncio.sleep(0.05)
        await self.stop()
        raise EngineStartFailed("llama-server was not ready in time.")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(1 << 16):
            self._log.feed(data)

    async def _watch(self) -> None:
        assert self._process is not None
        await self._process.wait()
        if self.state is not EngineState.STOPPED:
            self.state = EngineState.FAILED

    async def wait(self) -> EngineExit:
        assert self._process is not None
        code = await self._process.wait()
        return EngineExit(f"llama-server ended with status {code}.", code, None, self.log_tail())

    async def stop(self, grace_seconds: float = 5.0) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self.state = EngineState.STOPPED
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), grace_seconds)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def log_tail(self, lines: int = 50) -> tuple[str, ...]:
        return self._log.tail(lines)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
