"""Predicted against observed: what the first request of a service showed, for later forecasts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from moestro.hardware.process_memory import in_ram, process_memory
from moestro.planning import Estimate, Planner, Settings, Workload
from moestro.planning.observed import Observation
from moestro.planning.placement import HOST

if TYPE_CHECKING:
    from moestro.cli.launch import Prepared
    from moestro.client.endpoint import Answer

ENOUGH_TOKENS = 24
"""Fewer say more about the clock than about the engine."""


def observation(prepared: Prepared, pid: int | None, answer: Answer) -> Observation | None:
    """What `answer`, alone in the engine, showed; None where it was too short to show anything."""
    usage = answer.usage or {}
    written, read = usage.get("completion_tokens"), usage.get("prompt_tokens")
    if not isinstance(written, int) or not isinstance(read, int) or written < ENOUGH_TOKENS:
        return None
    plan = prepared.plan
    if plan.settings.mtp_depth or plan.settings.ngram != "off":
        return None  # forecasts are of decoding without drafts
    if plan.engine.family != "llama.cpp":
        return None  # and of the engine whose rates were measured
    predicted = _predicted(prepared.planner, plan.settings, read, written)
    return Observation(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=prepared.name,
        architecture=plan.model.architecture,
        decode_predicted=predicted.expected if predicted is not None else None,
        source=predicted.source if predicted is not None else None,
        decode_observed=answer.tokens_per_second,
        memory_predicted_bytes=plan.ledger.resident_bytes(HOST),
        memory_observed_bytes=in_ram(process_memory(pid)),
    )


def _predicted(planner: Planner, settings: Settings, read: int, written: int) -> Estimate | None:
    workload = Workload(settings.context, settings.parallel, read, written)
    placement = planner.trial(settings).placement
    speed = planner.forecaster.raw(settings, placement, workload)
    return None if speed is None else speed.decode
