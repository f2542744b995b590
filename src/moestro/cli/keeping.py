"""A service for what was prepared: one that knows what to give up where memory is short, and
whether the machine has room for two engines at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moestro.cli.engine_memory import MemoryReader, room_bytes
from moestro.cli.fronting import Facing
from moestro.cli.launch import Prepared
from moestro.engine import EngineRequest
from moestro.errors import EngineError, EngineOutOfMemory
from moestro.planning.ladder import next_step
from moestro.planning.placement import HOST, expert_blocks

if TYPE_CHECKING:
    from moestro.gateway.service import Note, Service


class Served:
    """What is served now; another one after a reload."""

    def __init__(self, prepared: Prepared) -> None:
        self.now = prepared


def service_for(
    served: Served,
    facing: Facing,
    on_note: Callable[[Note], None],
    log_file: Path | None = None,
) -> Service:
    """A service that has not started yet. Its engines write what they say to `log_file` too, and
    are replaced before they own more than the user said, or than the machine has."""
    from moestro.engine.start import make_engine
    from moestro.gateway.growth import GrowthWatch
    from moestro.gateway.service import Service

    def milder(request: EngineRequest, error: EngineError) -> tuple[EngineRequest, str] | None:
        if not isinstance(error, EngineOutOfMemory):
            return None
        prepared = served.now
        fixed = {reason.setting for reason in prepared.plan.reasons if reason.source == "user"}
        step = next_step(
            request.settings,
            expert_blocks=len(expert_blocks(prepared.model)),
            gpus=bool(prepared.plan.hardware.gpus),
            fixed=fixed,
        )
        if step is None:
            return None
        settings, given_up = step
        return replace(request, settings=settings), f"{error.sentence} {given_up}"

    def fits_beside(request: EngineRequest) -> bool:
        return _fits_beside(served.now, request)

    memory = MemoryReader(facing.engine_memory_bytes)
    return Service(
        partial(make_engine, log_file=log_file),
        facing.request(served.now),
        milder=milder,
        fits_beside=fits_beside,
        on_note=on_note,
        growth=GrowthWatch(memory, lambda: _cache_bytes(served.now), memory.slow),
        unload_seconds=facing.unload_seconds,
    )


def _cache_bytes(prepared: Prepared) -> int:
    """What an engine's caches may come to hold on the host beyond what it takes at first."""
    return prepared.plan.ledger.device(HOST).kind_bytes("prompt cache", "context checkpoints")


def _fits_beside(prepared: Prepared, request: EngineRequest) -> bool:
    """Whether one more engine like that has room now. With a GPU it is assumed that it has not:
    plans fill the card."""
    if prepared.plan.hardware.gpus:
        return False
    takes = prepared.planner.trial(request.settings).takes_bytes.get(HOST)
    return takes is not None and takes <= room_bytes()
