"""One engine of a service, from its start to its end, and the requests that it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum

from moestro.engine import Engine, EngineExit, EngineRequest, EngineState
from moestro.errors import EngineError, EngineStartFailed
from moestro.gateway.engine_link import EngineLink

LAST_BYTES_SECONDS = 0.2
"""Time for requests to read what a dead engine had still sent, before their link is cut."""

NEXT: Mapping[EngineState, frozenset[EngineState]] = {
    EngineState.STARTING: frozenset({EngineState.READY, EngineState.FAILED, EngineState.STOPPED}),
    EngineState.READY: frozenset({EngineState.DRAINING, EngineState.FAILED, EngineState.STOPPED}),
    EngineState.DRAINING: frozenset({EngineState.FAILED, EngineState.STOPPED}),
    EngineState.FAILED: frozenset(),
    EngineState.STOPPED: frozenset(),
}
"""The life of an engine is a line: nothing leads back."""

HUNG = "The engine hung: it answered nothing any more, and was killed."

FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"})
"""Signals that somebody else sent: an engine that ends by one of them did not crash."""


class Why(StrEnum):
    """One engine follows another: three ends that nobody wanted, two kinds of replacement."""

    CRASHED = "crashed"
    KILLED = "killed"
    HUNG = "hung"
    GREW = "grew"
    REPLACED = "replaced"


OnChange = Callable[["Life", str], None]


class Life:
    """Its service is the only one that moves it on; everyone else looks."""

    def __init__(
        self, number: int, engine: Engine, request: EngineRequest, on_change: OnChange
    ) -> None:
        self.number = number
        self.engine = engine
        self.request = request
        self.exit: EngineExit | None = None
        self.hung = False
        self.heard_at = time.monotonic()
        """When a byte of an answer last came from it."""

        self._state = EngineState.STARTING
        self._on_change = on_change
        self._link: EngineLink | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._running = 0
        self.answered = 0
        """Requests that it is done with."""

        self.idle_since = time.monotonic()
        """When it last had nothing to do; means nothing while it has."""

    @property
    def ready(self) -> bool:
        return self.state is EngineState.READY

    @property
    def state(self) -> EngineState:
        """What the engine says of itself comes first: between its death and the end of the watch
        nothing may be sent to it."""
        if self.engine.state in (EngineState.FAILED, EngineState.STOPPED):
            return self._state if not NEXT[self._state] else EngineState.FAILED
        return self._state

    @property
    def crashed(self) -> bool:
        """Whether it ended by itself after it was ready, and not because it was asked to."""
        return self._state is EngineState.FAILED and self._link is not None

    @property
    def why_it_ended(self) -> Why:
        """For those who count, if nobody wanted it to end."""
        if self.hung:
            return Why.HUNG
        killed = self.exit is not None and self.exit.signal in FROM_OUTSIDE
        return Why.KILLED if killed else Why.CRASHED

    @property
    def running(self) -> int:
        return self._running

    @property
    def link(self) -> EngineLink:
        if self._link is None:
            raise EngineError("The engine has no link before it is ready.")
        return self._link

    def _move(self, state: EngineState, because: str) -> None:
        assert state in NEXT[self._state], f"{self._state} → {state}"
        self._state = state
        self._on_change(self, because)

    async def start(self, timeout_seconds: float | None = None) -> None:
        """Returns when the engine answers.

        Raises:
            EngineStartFailed: it ended first, was not ready in time, or was stopped.
        """
        try:
            await self.engine.start(timeout_seconds)
        except EngineError as error:
            if NEXT[self._state]:
                self._move(EngineState.FAILED, error.sentence)
            self._ended.set()
            raise
        if not NEXT[self._state]:  # a stop that the engine could not obey at that moment
            await self.engine.stop(grace_seconds=0)
            raise EngineStartFailed("The engine was stopped before it was ready.")
        streams = self.request.settings.parallel
        self._link = EngineLink(self.engine.address, self.engine.api_key, streams)
        self._watch = asyncio.create_task(self._follow(self._link), name=f"engine {self.number}")
        self.idle_since = time.monotonic()
        self._move(EngineState.READY, f"ready after {self.engine.started_seconds or 0:.1f} s")

    async def _follow(self, link: EngineLink) -> None:
        self.exit = await self.engine.wait()
        if self.hung:
            self.exit = replace(self.exit, sentence=HUNG)
        try:
            if NEXT[self._state]:
                self._move(EngineState.FAILED, self.exit.sentence)
        finally:  # whatever those who are told do
            self._ended.set()
        await asyncio.sleep(LAST_BYTES_SECONDS)
        await link.close()

    async def ended(self) -> None:
        """Waits until the engine is gone, however that came."""
        await self._ended.wait()

    async def kill(self) -> None:
        """Ends an engine that hangs, as if it had crashed."""
        self.hung = True
        await self.engine.stop(grace_seconds=0)

    def begin(self) -> None:
        """One more request is with this engine; `end` follows."""
        self._running += 1
        self._empty.clear()

    def end(self) -> None:
        self._running -= 1
        self.answered += 1
        if not self._running:
            self.idle_since = time.monotonic()
            self._empty.set()

    def drain(self, because: str) -> None:
        """It gets no more requests."""
        if self.state is EngineState.READY:
            self._move(EngineState.DRAINING, because)

    async def drained(self, seconds: float) -> bool:
        """Whether its last request had its answer within so many seconds, or it ended."""
        waiting = [asyncio.create_task(e.wait()) for e in (self._empty, self._ended)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return not self._running

    async def stop(self, because: str, grace_seconds: float = 5.0) -> None:
        """Breaks what is in progress, then ends the engine. May be called at any moment."""
        if NEXT[self._state]:
            self._move(EngineState.STOPPED, because)
        if self._link is not None:
            await self._link.close()
        await self.engine.stop(grace_seconds)
        self._ended.set()
        if self._watch is not None:  # whoever gives up waiting for it must not end it
            await asyncio.wait((self._watch,))
