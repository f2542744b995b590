"""The owner of an engine: its life, its readiness, and what it is fit for.

Whoever needs the engine asks for its link at the moment of use. Nobody keeps a copy of its state.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from moestro.engine import Engine, EngineExit, EngineRequest, EngineState
from moestro.errors import EngineStartFailed
from moestro.gateway import failure
from moestro.gateway.engine_link import EngineLink
from moestro.gateway.failure import Failure, RequestFailed
from moestro.gateway.served_model import ServedModel

LAST_BYTES_SECONDS = 0.2
"""Time for requests to read what a dead engine had still sent, before their link is cut."""

EXIT_REASON_SECONDS = 1.5
"""How long a broken request waits to learn why: a socket breaks before an exit is reaped."""


@dataclass(frozen=True, slots=True)
class Status:
    state: EngineState
    reason: str | None = None


class Service:
    """One engine behind the endpoint, from its start to its end.

    An engine's life is a line, so a `Service` is used once. It does not stop by itself when the
    engine dies: it stays, says so, and refuses work.
    """

    def __init__(self, engine: Engine, request: EngineRequest) -> None:
        self._engine = engine
        self._link: EngineLink | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False
        self._exit: EngineExit | None = None
        self._exit_known = asyncio.Event()
        self._started_at = time.monotonic()
        self._request = request
        self.model = ServedModel.of(request)

    @property
    def status(self) -> Status:
        if self._stopping:
            return Status(EngineState.STOPPED, "The gateway is shutting down.")
        if self._exit is not None:
            return Status(EngineState.FAILED, self._exit.sentence)
        if self._engine.state in (EngineState.FAILED, EngineState.STOPPED):
            return Status(EngineState.FAILED, "The engine has ended.")
        if self._link is None:
            return Status(EngineState.STARTING, "The engine is loading the model.")
        return Status(EngineState.READY)

    @property
    def stopping(self) -> bool:
        """Whether the end was asked for here, and not the engine's own."""
        return self._stopping

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._started_at

    async def start(self, timeout_seconds: float | None = None) -> None:
        """Returns when the engine answers.

        Raises:
            EngineStartFailed: it ended first, was not ready in time, or was stopped.
        """
        if self.stopping:
            raise _stopped_early()
        await self._engine.start(timeout_seconds)
        if self._stopping:  # a stop that the engine could not obey at that moment
            await self._engine.stop(grace_seconds=0)
            raise _stopped_early()
        self.model = ServedModel.of(self._request, self._engine.stream_context)
        link = EngineLink(self._engine.address, self._engine.api_key)
        self._link = link
        self._watch = asyncio.create_task(self._watch_exit(link), name="engine-exit-watch")

    async def _watch_exit(self, link: EngineLink) -> None:
        self._exit = await self._engine.wait()
        self._exit_known.set()
        await asyncio.sleep(LAST_BYTES_SECONDS)
        await link.close()

    def link(self) -> EngineLink:
        """The way to the engine, now.

        Raises:
            RequestFailed: 503, when it is not ready.
        """
        refusal = self.refusal()
        if refusal is not None or self._link is None:
            raise RequestFailed(refusal or _not_ready(Status(EngineState.STARTING)))
        return self._link

    def refusal(self) -> Failure | None:
        """Why a request would be refused now; None when it would not."""
        status = self.status
        return None if status.state is EngineState.READY else _not_ready(status)

    async def why_broken(self) -> Failure:
        """What to tell a client whose request broke on the way to the engine or back."""
        if self._watch is not None and not self._stopping:
            try:
                async with asyncio.timeout(EXIT_REASON_SECONDS):
                    await self._exit_known.wait()
            except TimeoutError:
                return failure.broke_off()
        return self.refusal() or failure.broke_off()

    async def ended(self) -> EngineExit:
        """Waits until the engine has ended, however it ended."""
        return await self._engine.wait()

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Breaks what is in progress, then ends the engine. May be called at any moment."""
        self._stopping = True
        if self._link is not None:
            await self._link.close()
        await self._engine.stop(grace_seconds)
        if self._watch is not None:
            await self._watch


def _stopped_early() -> EngineStartFailed:
    return EngineStartFailed("The service was stopped before its engine was ready.")


def _not_ready(status: Status) -> Failure:
    reason = status.reason or "The engine is not ready."
    match status.state:
        case EngineState.STARTING:
            return failure.unavailable(
                reason, "engine_starting", hint="GET /health says when it is ready."
            )
        case EngineState.STOPPED:
            return failure.unavailable(reason, "shutting_down", source="gateway")
        case _:
            return failure.unavailable(
                reason,
                "engine_gone",
                hint="Restart the service; its terminal shows the last lines of the log.",
            )
