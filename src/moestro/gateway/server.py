"""The listening socket, the web server on it, and the life of both around a service."""

from __future__ import annotations

import asyncio
import errno
import math
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import uvicorn

from moestro.errors import GatewayError, PortTaken
from moestro.gateway.app import Front, create_app
from moestro.gateway.board import Board
from moestro.gateway.defaults import DEFAULT_HOST, DEFAULT_PORT, DRAIN_SECONDS
from moestro.gateway.http_protocol import BoundedHttp, raise_file_limit
from moestro.gateway.promptly import forget_the_start, run_promptly
from moestro.gateway.service import Service

Result = TypeVar("Result")

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep an idle connection (httpx 5 s, aiohttp 15 s), so that they close it."""

CLOSE_SECONDS = 5
"""How long answers may take to leave after the engine's link was cut."""

START_END_SECONDS = 3.0
"""How long the start of an engine that was told to stop may take to notice, before it is cancelled;
and after that, to end."""


def bind(host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> socket.socket:
    """A listening socket, before anything expensive starts. Port 0 takes a free one.

    Raises:
        PortTaken: another program listens there.
        GatewayError: the address can't be listened on.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, ValueError) as error:  # ValueError: no host can have such a name
        raise GatewayError(
            f"“{host}” is not an address of this machine.",
            hint=f"Use {DEFAULT_HOST}, or 0.0.0.0 for every interface.",
            code="bad-address",
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Without this, connections of an earlier run would keep the port for a minute. On Linux and
        # macOS it does not let two programs listen on the same address and port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _bind_error(host, port, error) from error
    return listener


def _bind_error(host: str, port: int, error: OSError) -> GatewayError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"Port {port} on {host} is taken by another program.",
            hint="Stop it, or choose another with --port (0 takes a free one).",
        )
    if error.errno == errno.EACCES:
        return GatewayError(
            f"Port {port} is reserved for the system.",
            hint="Choose one from 1024 on.",
            code="port-reserved",
        )
    return GatewayError(
        f"{host}:{port} can't be listened on: {error.strerror or error}.",
        hint=f"Use {DEFAULT_HOST}, or 0.0.0.0 for every interface.",
        code="bad-address",
    )


def base_url(listener: socket.socket) -> str:
    """How a client on this machine reaches the socket, without `/v1`."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Uvicorn(uvicorn.Server):
    """Leaves signals to whoever runs the loop: the engine has to be stopped as well."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Web:
    """The web server on a socket, answering from the moment it is made."""

    def __init__(self, service: Service, listener: socket.socket, front: Front) -> None:
        self.url = base_url(listener)
        self._service = service
        self._board = front.board if front.board is not None else Board(service)
        front = replace(front, board=self._board)
        self._server = _Uvicorn(
            uvicorn.Config(
                create_app(service, front),
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self._sockets = [listener]
        self.task = asyncio.create_task(self._server.serve(sockets=self._sockets), name="web")

    def refuse_new(self, drain_seconds: float = 0.0) -> None:
        """Closes the socket and idle connections; `task` ends when the last answer has left, or
        `CLOSE_SECONDS` after the end of the draining: then uvicorn cuts what is left, and says
        nothing to anybody."""
        if not self._server.should_exit:
            self._server.config.timeout_graceful_shutdown = math.ceil(drain_seconds + CLOSE_SECONDS)
        self._server.should_exit = True
        self._board.close()

    async def close(self) -> None:
        """Breaks what is in progress with a clear last word, and stops the engine."""
        self.refuse_new()
        try:
            await self._service.stop()
        finally:
            await self.task


@asynccontextmanager
async def serving(
    service: Service, listener: socket.socket, front: Front | None = None
) -> AsyncIterator[str]:
    """Answers on the socket at once, yields its URL when the engine is ready, and stops both on
    leaving. Takes no signals, so it runs in any thread.

    Raises:
        EngineStartFailed: the engine did not come up.
    """
    web = _Web(service, listener, front or Front())
    try:
        await service.start()
        yield web.url
    finally:
        await web.close()


async def serve(
    service: Service,
    listener: socket.socket,
    front: Front | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_drain: Callable[[], None] = lambda: None,
    on_hangup: Callable[[], Coroutine[Any, Any, None]] | None = None,
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Serves until SIGINT or SIGTERM, in the main thread. A SIGHUP runs `on_hangup`, where there is
    one, beside everything else; another one that comes while it runs does nothing. `on_drain` is
    told when a SIGTERM has come.

    SIGINT stops at once. SIGTERM lets answers in progress finish, for `drain_seconds` at most; a
    second signal ends that wait. A signal while the engine loads ends the loading.

    Raises:
        EngineStartFailed: the engine did not come up.
    """
    raise_file_limit()
    run_promptly()
    with _signals() as signals, _hangups(on_hangup):
        web = _Web(service, listener, front or Front())
        start = asyncio.create_task(service.start(), name="engine-start")
        stop = asyncio.create_task(signals.get(), name="stop-signal")
        try:
            await asyncio.wait((start, stop, web.task), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                forget_the_start()
                if on_ready is not None:
                    on_ready(web.url)
                await asyncio.wait((stop, web.task), return_when=asyncio.FIRST_COMPLETED)
            if start.done() and stop.done() and stop.result() is signal.SIGTERM:
                on_drain()
                await _drain(service, web, signals, drain_seconds)
        finally:
            stop.cancel()
            try:
                await web.close()
            finally:
                await _end(start)


async def _end(start: asyncio.Task[None]) -> None:
    """Ended by a signal, an engine that was loading says that its start failed: as asked."""
    done, _ = await asyncio.wait((start,), timeout=START_END_SECONDS)
    if not done:
        start.cancel()
        await asyncio.wait((start,), timeout=START_END_SECONDS)
    if start.done() and not start.cancelled():
        start.exception()


async def _drain(
    service: Service, web: _Web, signals: asyncio.Queue[signal.Signals], drain_seconds: float
) -> None:
    """Answers in progress may end; who waits for an engine is told to come back."""
    web.refuse_new(drain_seconds)
    service.refuse_waiting()
    second = asyncio.create_task(signals.get())
    await asyncio.wait(
        (web.task, second), timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    second.cancel()


@contextmanager
def _signals() -> Iterator[asyncio.Queue[signal.Signals]]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
    watched = (signal.SIGINT, signal.SIGTERM)
    for number in watched:
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield queue
    finally:
        for number in watched:
            loop.remove_signal_handler(number)


@contextmanager
def _hangups(react: Callable[[], Coroutine[Any, Any, None]] | None) -> Iterator[None]:
    if react is None or sys.platform == "win32":
        yield
        return
    loop = asyncio.get_running_loop()
    at_work: set[asyncio.Task[None]] = set()

    def hear() -> None:
        if not at_work:
            task = loop.create_task(react(), name="hangup")
            at_work.add(task)
            task.add_done_callback(at_work.discard)

    loop.add_signal_handler(signal.SIGHUP, hear)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in at_work:
            task.cancel()


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Runs the program's event loop, on uvloop where there is one. The coroutine is made once the
    loop is there: an interrupt before that leaves none behind that was never awaited."""
    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
