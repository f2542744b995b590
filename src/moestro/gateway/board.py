"""What the page at `/` and a Prometheus server see: one reading of everything, and who listens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from moestro import __version__
from moestro.client.text import json_bytes
from moestro.engine import EngineState
from moestro.errors import MoestroError
from moestro.gateway import failure
from moestro.gateway.failure import RequestFailed
from moestro.gateway.life import Life
from moestro.gateway.meters import RECENT_SECONDS, Ended, Meters, percentile
from moestro.gateway.service import Note, Service
from moestro.hardware.process_memory import in_ram, process_memory

METRICS, STATUS, EVENTS, ROUTING = "/metrics", "/api/status", "/api/events", "/api/routing"
"""They tell of the service and of nobody's text: one scope of access."""

EVERY_SECONDS = 2.0
"""Between two readings for those who listen."""

FRESH_SECONDS = 0.5
"""For so long one reading does for everybody."""

MOST_LISTENERS = 16
MOST_UNSENT = 64
"""Events that one listener may be behind; then the oldest is dropped."""

SLOTS_SECONDS = 0.25
"""How long the engine may take to say how full its cache is: between two long steps it answers
nothing, and the last figure stands."""

MOST_NOTES = 100
PACE_SHOWN_SECONDS = 120
NOW_SECONDS = 3
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

_FIGURES: Mapping[str, Callable[[Ended], float | None]] = {
    "time_to_first_token": lambda one: one.first,
    "between_tokens": lambda one: one.between,
    "longest_pause": lambda one: one.pause,
    "whole_request": lambda one: one.whole,
    "queue": lambda one: one.waited,
}


@dataclass(frozen=True)
class About:
    """What the gateway can't know by itself; whoever starts it says so. Everything may be empty.

    `memory` has an object for each device of the plan, as `plan --json` has them, with two more:
    `resident`, the bytes of each part that are taken once the model is loaded, and `later`, the
    kinds of what may come on top of it. `device_bytes` tells what a
    process has of each GPU now, `routing` what the last `verify` found of the routers; both may
    take a while and are called in a thread.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    machine: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reasons: Sequence[Mapping[str, Any]] = ()
    memory: Sequence[Mapping[str, Any]] = ()
    speed: Mapping[str, Any] | None = None
    device_bytes: Callable[[int], Mapping[str, int]] | None = None
    routing: Callable[[], Mapping[str, Any] | None] = lambda: None


class Board:
    """One for each gateway. `about` may be replaced while it runs."""

    def __init__(self, service: Service, about: About | None = None) -> None:
        self.service = service
        self.about = about if about is not None else About()
        self.meters = Meters()
        self.host_bytes: dict[str, int] = {}
        self.device_bytes: dict[str, int] = {}
        self.cache_used: float | None = None
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._telling: asyncio.Task[None] | None = None
        self._closed = False

    # One reading

    async def refresh(self) -> None:
        """Looks at the engine's process and its cache, unless somebody just did."""
        if self._reading is None or self._reading.done():
            if self._read_at is not None and time.monotonic() - self._read_at < FRESH_SECONDS:
                return
            self._reading = asyncio.create_task(self._read(), name="board")
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        life = self.service.life
        pid = life.engine.pid if life is not None and life.exit is None else None
        self.host_bytes = process_memory(pid)
        look = self.about.device_bytes
        if pid is None or look is None:
            self.device_bytes = {}
        else:
            self.device_bytes = dict(await asyncio.to_thread(look, pid))
        self.cache_used = await self._cache_used(life)
        self._read_at = time.monotonic()

    async def _cache_used(self, life: Life | None) -> float | None:
        """The share of the cache that requests in progress hold; the last one known where the
        engine is busy."""
        if life is None or life.state is not EngineState.READY:
            return None
        if not life.running:
            return 0.0 if self.cache_used is not None else await _asked(life, None)
        return await _asked(life, self.cache_used)

    def status(self) -> dict[str, Any]:
        """All that the page shows, after a `refresh`. docs/reference/api.md describes it."""
        service, about, now = self.service, self.about, time.monotonic()
        status = service.status
        life = service.life
        settings = service.request.settings.to_json()
        pace = self.meters.pace.last(now, PACE_SHOWN_SECONDS)
        return {
            "at": time.time(),
            "moestro": __version__,
            "state": str(status.state),
            "reason": status.reason,
            "uptime_seconds": round(service.uptime_seconds, 1),
            "model": {**about.model, **service.model.to_json()},
            "engine": {
                **about.engine,
                "number": life.number if life is not None else None,
                "pid": life.engine.pid if life is not None else None,
                "started_seconds": life.engine.started_seconds if life is not None else None,
            },
            "machine": about.machine,
            "settings": settings,
            "given_up": bool(about.settings) and settings != about.settings,
            "reasons": list(about.reasons),
            "memory": self._memory(),
            "speed": {
                "tokens_per_second": round(sum(pace[-NOW_SECONDS:]) / NOW_SECONDS, 2),
                "history": pace,
                "planned": about.speed,
            },
            "latency": self._latency(),
            "requests": self._requests(),
            "queue": {
                "running": service.running,
                "waiting": service.queue.waiting,
                "streams": service.model.parallel,
                "most_waiting": service.queue.most_waiting,
                "cache_used": self.cache_used,
            },
            "drafts": {
                "drafted": self.meters.drafted_tokens,
                "accepted": self.meters.accepted_tokens,
            },
            "restarts": {"count": service.restarts, "reasons": dict(service.restart_reasons)},
            "growth": None if service.growth is None else service.growth.to_json(),
            "events": [event_of(note) for note in [*service.notes][-MOST_NOTES:]],
        }

    def _memory(self) -> dict[str, Any]:
        return {
            "planned": list(self.about.memory),
            "host": self.host_bytes,
            "host_bytes": in_ram(self.host_bytes),
            "devices": self.device_bytes,
        }

    def _latency(self) -> dict[str, Any]:
        ended = self.meters.within()
        found: dict[str, Any] = {"window_seconds": RECENT_SECONDS, "requests": len(ended)}
        for name, of in _FIGURES.items():
            values = [value for one in ended if (value := of(one)) is not None]
            found[name] = {
                **{share: percentile(values, part) for share, part in SHARES.items()},
                "requests": len(values),
            }
        return found

    def _requests(self) -> dict[str, Any]:
        meters = self.meters
        return {
            "ended": dict(meters.ends),
            "failures": dict(meters.failures),
            "interrupted": meters.interrupted,
            "prompt_tokens": meters.prompt_tokens,
            "cached_tokens": meters.cached_tokens,
            "generated_tokens": meters.written_tokens,
        }

    async def routing(self) -> dict[str, Any]:
        """What the last `verify` of this file found of its routers; `profile` None if nothing."""
        try:
            profile = await asyncio.to_thread(self.about.routing)
        except (OSError, ValueError, MoestroError):  # a damaged file, or one that is not ours
            profile = None
        return {"model": self.service.model.name, "profile": profile}

    # Those who listen

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Queue[bytes | None]]:
        """Server-sent events as they come; None after the last one.

        Raises:
            RequestFailed: too many listen, or the gateway is shutting down.
        """
        if self._closed:
            raise RequestFailed(
                failure.unavailable(
                    "The gateway is shutting down.", "shutting_down", source="gateway"
                )
            )
        if len(self._listeners) >= MOST_LISTENERS:
            raise RequestFailed(
                failure.unavailable(
                    f"{MOST_LISTENERS} clients listen already.",
                    "too_many_listeners",
                    source="gateway",
                    hint=f"Close one of them, or ask {STATUS} now and then.",
                )
            )
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_UNSENT)
        self._listeners.add(queue)
        self.service.listeners.add(self._tell)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_status(), name="status events")
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
            if not self._listeners:
                self.service.listeners.discard(self._tell)
                self._telling.cancel()
                self._telling = None

    def close(self) -> None:
        """Nobody listens any longer."""
        self._closed = True
        for queue in self._listeners:
            _put(queue, None)

    def _tell(self, note: Note) -> None:
        self._send(server_event("note", event_of(note)))

    async def _tell_status(self) -> None:
        while True:
            await self.refresh()
            self._send(server_event("status", self.status()))
            await asyncio.sleep(EVERY_SECONDS)

    def _send(self, event: bytes) -> None:
        for queue in self._listeners:
            _put(queue, event)


async def _asked(life: Life, otherwise: float | None) -> float | None:
    try:
        async with asyncio.timeout(SLOTS_SECONDS), life.link.get("/slots") as answer:
            slots = json.loads(await answer.rest()) if answer.status == 200 else None
    except (ValueError, OSError):  # a timeout is an OSError
        return otherwise
    return used_share(slots)


def used_share(slots: Any) -> float | None:
    """Of an engine's `/slots`: the tokens that its busy slots hold, over all that there is room
    for; None where it does not say."""
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        return None
    room = held = 0
    for slot in slots:
        size, tokens = slot.get("n_ctx"), slot.get("n_prompt_tokens", 0)
        if type(size) is not int or type(tokens) is not int:
            return None
        room += size
        held += min(tokens, size) if slot.get("is_processing") is True else 0
    return held / room if room else None


def event_of(note: Note) -> dict[str, Any]:
    return {
        "at": note.at,
        "engine": note.engine or None,
        "state": str(note.state) if note.state is not None else None,
        "text": note.text,
    }


def server_event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + json_bytes(data) + b"\n\n"


def _put(queue: asyncio.Queue[bytes | None], event: bytes | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
