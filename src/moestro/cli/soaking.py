"""Load on a model over a while, with the sensors read beside it: the soak of `doctor`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moestro.cli.launch import Prepared
from moestro.client.endpoint import EndpointClient
from moestro.doctor.soak import SoakReport, SoakSample
from moestro.engine import EngineState
from moestro.engine.start import make_engine
from moestro.errors import EngineError, MoestroError
from moestro.gateway.access import Access
from moestro.gateway.app import Front
from moestro.gateway.keys import new_secret
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from moestro.hardware.gpu_state import read_gpu_states
from moestro.hardware.process_memory import own_bytes

STRETCHES = 18
"""Samples of a soak: six in each third."""

LEAST_STRETCH_SECONDS = 1.0
ANSWER_TOKENS = 256
WARM_UP_SECONDS = 2.0
PROMPTS = (
    "Describe a walk through a town that you have never seen.",
    "Explain how a clock works to someone who has never seen one.",
    "List the things that a good host thinks of before a dinner.",
    "Tell the story of a letter that arrived too late.",
)


def soaked(prepared: Prepared, seconds: float, progress: Callable[[float], None]) -> SoakReport:
    """Runs the plan's engine with as many streams as it has for `seconds`. `progress` is told the
    seconds of load so far. What goes wrong is in the report."""
    return asyncio.run(_soak(prepared, seconds, progress))


@dataclass(slots=True)
class _Load:
    """Tokens written so far by all streams together."""

    tokens: int = 0
    failures: list[MoestroError] = field(default_factory=list)

    async def stream(self, url: str, key: str, number: int) -> None:
        """One user who asks without end."""
        turn = number
        try:
            async with EndpointClient(url, api_key=key) as client:
                while True:
                    asked = [{"role": "user", "content": PROMPTS[turn % len(PROMPTS)]}]
                    options = {"max_tokens": ANSWER_TOKENS, "temperature": 0.8, "seed": turn}
                    async with client.chat(asked, options=options) as answer:
                        async for _ in answer:
                            self.tokens += 1
                    turn += 1
        except MoestroError as error:
            self.failures.append(error)


async def _soak(
    prepared: Prepared, seconds: float, progress: Callable[[float], None]
) -> SoakReport:
    parallel = prepared.plan.settings.parallel
    request = prepared.request()
    service = Service(make_engine, request)
    samples: list[SoakSample] = []
    load = _Load()
    begun = time.monotonic()
    try:
        key = new_secret()
        front = Front(access=Access.private(key))
        async with serving(service, bind(port=0), front) as url:
            streams = [asyncio.create_task(load.stream(url, key, n)) for n in range(parallel)]
            try:
                await asyncio.sleep(min(WARM_UP_SECONDS, seconds / 4))
                begun = time.monotonic()
                await _watch(prepared, service, load, seconds, samples, progress)
            finally:
                for stream in streams:
                    stream.cancel()
                await asyncio.gather(*streams, return_exceptions=True)
            if service.restarts:  # no stream noticed; a soak is to
                ends = [note.text for note in service.notes if note.state is EngineState.FAILED]
                load.failures.insert(0, EngineError(ends[0]))
    except MoestroError as error:
        load.failures.insert(0, error)
    trouble = load.failures[0].sentence if load.failures else None
    return SoakReport(time.monotonic() - begun, parallel, tuple(samples), trouble)


async def _watch(
    prepared: Prepared,
    service: Service,
    load: _Load,
    seconds: float,
    samples: list[SoakSample],
    progress: Callable[[float], None],
) -> None:
    engine = service.engine
    assert engine is not None
    stretch = max(seconds / STRETCHES, LEAST_STRETCH_SECONDS)
    last = begun = time.monotonic()
    tokens, times = load.tokens, processor_times(engine.pid)
    while last - begun < seconds and not load.failures and not service.restarts:
        await asyncio.sleep(stretch)
        now = time.monotonic()
        now_tokens, now_times = load.tokens, processor_times(engine.pid)
        states = await asyncio.to_thread(read_gpu_states, prepared.plan.hardware) or ()
        heats = [state.temperature_c for state in states if state.temperature_c is not None]
        samples.append(
            SoakSample(
                at_seconds=now - begun,
                tokens_per_second=(now_tokens - tokens) / (now - last),
                temperature_c=_hottest(),
                gpu_temperature_c=max(heats, default=None),
                gpu_reasons=tuple(sorted({r for s in states for r in s.reasons or ()})),
                rss_bytes=None if engine.pid is None else own_bytes(engine.pid),
                stolen=now_times.stolen_since(times),
                others=now_times.others_since(times),
            )
        )
        progress(now - begun)
        last, tokens, times = now, now_tokens, now_times


def _hottest() -> float | None:
    """The processor's warmest sensor, in °C."""
    import psutil

    if not hasattr(psutil, "sensors_temperatures"):
        return None
    found = psutil.sensors_temperatures()
    values = [
        reading.current
        for name, readings in found.items()
        if name in ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")
        for reading in readings
    ]
    return max(values, default=None)


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Seconds of all processors since the boot: `whole` with idling, `busy` with programs, `stolen`
    by the machine's own host (None where the kernel does not count it). `own` is what the engine
    and this process had of `busy`, None once one of them has ended."""

    whole: float
    busy: float
    stolen: float | None
    own: float | None

    def stolen_since(self, before: ProcessorTimes) -> float | None:
        """The part of all processors' time that the host gave to others."""
        if self.stolen is None or before.stolen is None:
            return None
        return self._share(before, self.stolen - before.stolen)

    def others_since(self, before: ProcessorTimes) -> float | None:
        """The part of all processors' time that went to other processes."""
        if self.own is None or before.own is None:
            return None
        return self._share(before, self.busy - before.busy - (self.own - before.own))

    def _share(self, before: ProcessorTimes, seconds: float) -> float | None:
        whole = self.whole - before.whole
        # The kernel counts ticks here and nanoseconds there, so a little may be missing.
        return min(max(seconds / whole, 0.0), 1.0) if whole > 0 else None


def processor_times(engine: int | None) -> ProcessorTimes:
    """Now; `engine` is the engine's process."""
    import psutil

    times = psutil.cpu_times()
    # A guest's time is counted as the user's already.
    whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    own: float | None = 0.0
    for pid in (os.getpid(), engine):
        try:
            used = psutil.Process(pid).cpu_times() if pid is not None else None
        except psutil.Error:
            used = None
        own = None if own is None or used is None else own + used.user + used.system
    return ProcessorTimes(
        whole=whole,
        busy=times.user + getattr(times, "nice", 0.0) + times.system,
        stolen=getattr(times, "steal", None),
        own=own,
    )
