"""Loads one after the other on one endpoint, and what came of them. Used by `bench`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from moestro.cli.endpoint import Running, find, reached
from moestro.engine.drafts import LOG_LINES, acceptance_by_position
from moestro.errors import GatewayError
from moestro.load import (
    DEFAULT_CHARACTERS_PER_TOKEN,
    Load,
    LoadResult,
    RequestRecord,
    Scenario,
    Slo,
    Summary,
    Target,
    calibrate,
    client_of,
    generate,
    summarise,
)

OnRecord = Callable[[Load, RequestRecord], None]


@dataclass(frozen=True, slots=True)
class Run:
    load: Load
    result: LoadResult
    summary: Summary


@dataclass(frozen=True, slots=True)
class Bench:
    """`characters_per_token` is how long prompts were made; None where they were given. `model` is
    None where the endpoint did not say what it serves."""

    url: str
    model: str | None
    scenario: Scenario
    characters_per_token: float | None
    runs: tuple[Run, ...]
    interrupted: bool

    @property
    def answered(self) -> int:
        return sum(run.summary.requests for run in self.runs)

    @property
    def lost(self) -> str | None:
        return next((run.result.lost for run in self.runs if run.result.lost), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "model": self.model,
            "scenario": self.scenario.name,
            "characters_per_token": self.characters_per_token,
            "interrupted": self.interrupted,
            "runs": [
                {"summary": run.summary.to_json(), **run.result.to_json()} for run in self.runs
            ],
        }


def bench(
    target: Target | None,
    model: str | None,
    loads: Sequence[Load],
    slo: Slo | None,
    on_record: OnRecord,
    *,
    made_prompts: bool,
) -> Bench:
    """Runs the loads one after the other; without a target at the endpoint that runs here, or at
    one of its own. `made_prompts`: their length can be fitted to the endpoint's tokenizer. Ctrl-C
    ends it and keeps what was learned.

    Raises:
        MoestroError: nothing answers there, it refuses the very first request, or the model could
            not be started.
    """
    place = Running(target.url, model) if target else find(model, None)
    return asyncio.run(_bench(target, place, loads, slo, on_record, made_prompts))


async def _bench(
    target: Target | None,
    place: Any,
    loads: Sequence[Load],
    slo: Slo | None,
    on_record: OnRecord,
    made_prompts: bool,
) -> Bench:
    if target is not None:
        named = Target(target.url, target.api_key, target.model or await _first_model(target))
        return await _run_all(named, loads, slo, on_record, made_prompts)
    async with reached(place) as endpoint:
        local = Target(endpoint.client.url, endpoint.client.api_key, endpoint.model)
        local = replace(local, model=local.model or await _first_model(local))
        return await _run_all(local, loads, slo, on_record, made_prompts, endpoint.log)


async def _first_model(target: Target) -> str | None:
    """What the endpoint serves; servers of several models want to be told which. One that has no
    list may serve all the same: the first request will tell."""
    async with client_of(target) as client:
        try:
            models = await client.models()
        except GatewayError as error:
            if error.code == "endpoint-unreachable":
                raise
            return None
    name = models[0].get("id") if models else None
    return name if isinstance(name, str) else None


async def _run_all(
    target: Target,
    loads: Sequence[Load],
    slo: Slo | None,
    on_record: OnRecord,
    made_prompts: bool,
    log: Callable[[int], tuple[str, ...]] | None = None,
) -> Bench:
    scenario = loads[0].scenario
    runs: list[Run] = []
    stop = asyncio.Event()
    async with client_of(target) as client:
        found = await calibrate(target, scenario if made_prompts else None, client=client)
        ratio = found or DEFAULT_CHARACTERS_PER_TOKEN
        with _stopped_by_ctrl_c(stop):
            for load in loads:
                result = await generate(
                    target,
                    load,
                    characters_per_token=ratio,
                    on_record=lambda record, load=load: on_record(load, record),  # type: ignore[misc]
                    stop=stop,
                    client=client,
                )
                rates = acceptance_by_position(log(LOG_LINES), len(result.records)) if log else ()
                summary = summarise(result, slo, acceptance_by_position=rates or None)
                runs.append(Run(load, result, summary))
                if stop.is_set() or result.lost:
                    break
    return Bench(
        target.url,
        target.model,
        scenario,
        ratio if made_prompts else None,
        tuple(runs),
        stop.is_set(),
    )


@contextmanager
def _stopped_by_ctrl_c(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    # Not in the main thread: then nobody sends it signals either.
    with suppress(ValueError, RuntimeError):
        loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        yield
    finally:
        with suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
