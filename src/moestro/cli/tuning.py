"""From a model and a workload to measured settings: planner, engines, arena, search. For `tune`."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from moestro.cli.bench_figures import span
from moestro.cli.launch import Prepared, model_here, refuse_failures
from moestro.cli.planning import fitting_reference, planner_of, seen_by_engine, told
from moestro.cli.recall import completed, explained, fixed_settings
from moestro.cli.resolve import resolve
from moestro.engine.registry import MTP, EngineInfo, asked, engine_named, engines
from moestro.engine.start import make_engine
from moestro.errors import EngineError, MoestroError, UsageError
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory, this_inventory
from moestro.model import ModelSpec
from moestro.planning import Plan, Planner, Wishes, make_plan
from moestro.planning.settings import Settings
from moestro.tune.depth_run import measure_curve
from moestro.tune.engine_arena import MOST_ALIVE, EngineArena
from moestro.tune.forecast import Forecast
from moestro.tune.frontier import Frontier
from moestro.tune.frontier_run import FRONTIER_SHARE, measure_frontier
from moestro.tune.journal import Journal, OnEvent
from moestro.tune.result import TuneResult
from moestro.tune.rivals import rivals
from moestro.tune.search import SHORT, tune
from moestro.tune.space import space
from moestro.tune.store import found_nothing, keep
from moestro.tune.workload import Work

CURVE_SHARE = 0.2
"""Of the budget, for the curve of drafting depths, where the model can draft."""

CHARACTERS = 4.0
"""Of a token of usual text."""

SESSIONS_LOOKED_AT = 1000
ROOM = 64
"""Tokens of a stream beside prompt and answer: the chat template's."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """`plan` is the plan with the result's settings and reasons. `stopped` by Ctrl-C or SIGTERM.
    `findings` are about the search itself, not about the plan."""

    work: Work
    before: Plan
    plan: Plan
    result: TuneResult
    stopped: bool
    findings: tuple[Finding, ...] = ()


def tuned(
    text: str,
    work: Work,
    wishes: Wishes,
    budget_seconds: float,
    on_event: OnEvent,
    *,
    lossy_cache: bool = False,
    frontier: bool = False,
    anyway: bool = False,
    synthetic_acceptance: tuple[float, ...] = (),
) -> Tuned:
    """Searches settings for `work` on this machine, and keeps what it found.

    Raises:
        MoestroError: the model cannot be read or run, or the budget is too short.
        KeyboardInterrupt: stopped before anything was learned.
    """
    whole = this_inventory()
    machine = seen_by_engine(whole, wishes.engine)
    wishes = _for(work, wishes)
    model = _fetched(text, machine, wishes)
    wishes = replace(wishes, untuned=True)
    with planner_of(model, machine, wishes, whole.identity) as planner:
        before = told(make_plan(planner, with_alternatives=False), planner)
        if not anyway:
            refuse_failures((*model.findings, *before.findings))
        _check_room(work, before)
        journal = Journal(on_event)
        result, stopped = _searched(
            planner, before, work, wishes, budget_seconds, journal, lossy_cache, frontier,
            synthetic_acceptance,
        )  # fmt: skip
        version = engine_named(result.settings.engine).version
        result = result.but(
            workload=work.label,
            engine=result.settings.engine,
            engine_version=version,
        )
    kept = None if synthetic_acceptance else _kept(model, whole.identity, work, wishes, result)
    after = _planned(model, machine, whole.identity, wishes, result)
    findings = tuple(one for one in (kept, _missed(work, result)) if one is not None)
    return Tuned(work, before, after, result, stopped, findings)


def _for(work: Work, wishes: Wishes) -> Wishes:
    """What the workload needs, where the user fixed nothing."""
    return replace(
        wishes,
        prompt_tokens=wishes.prompt_tokens or work.scenario.prompt_tokens,
        output_tokens=wishes.output_tokens or work.scenario.output_tokens,
    )


def _check_room(work: Work, plan: Plan) -> None:
    """Raises UsageError where a stream is too short for the workload's longest requests."""
    needs = _longest(work) + ROOM
    if plan.settings.context < needs:
        raise UsageError(
            f"The requests of {work.scenario.name} need {needs:,} tokens, and a stream reaches "
            f"{plan.settings.context:,}.",
            hint="Raise --context, as far as model and memory allow, or take shorter requests.",
        )


def _longest(work: Work) -> int:
    """Tokens of the longest of some requests, answer included, by the usual length of a token."""
    some = islice(work.scenario.sessions(0, CHARACTERS), SESSIONS_LOOKED_AT)
    turns = (turn for session in some for turn in session.turns)
    return max(
        math.ceil(sum(len(str(m.get("content") or "")) for m in turn.messages) / CHARACTERS)
        + turn.max_tokens
        for turn in turns
    )


def _fetched(text: str, machine: Inventory, wishes: Wishes) -> ModelSpec:
    reference, chosen = fitting_reference(resolve(text), machine, wishes)
    model = model_here(reference, text)
    return model if chosen is None else replace(model, findings=(*model.findings, chosen))


def _searched(
    planner: Planner,
    plan: Plan,
    work: Work,
    wishes: Wishes,
    budget_seconds: float,
    journal: Journal,
    lossy_cache: bool,
    frontier: bool,
    synthetic_acceptance: tuple[float, ...],
) -> tuple[TuneResult, bool]:
    start = plan.settings
    model = plan.model
    prepared = Prepared(Path(model.files[0].location), planner.machine.identity, plan, planner)
    request = replace(prepared.request(), synthetic_acceptance=synthetic_acceptance)
    candidates = _candidates(start)
    tried = space(
        planner, start, candidates, fixed_settings(wishes), work.streams, allow_quality=lossy_cache
    )

    traded: Frontier | None = None

    async def search() -> TuneResult:
        nonlocal traded
        async with EngineArena(
            request,
            work,
            needs_bytes=_needs(Forecast(planner, start, candidates)),
            memory_bytes=_memory_bytes(planner),
            make=make_engine,
            most_alive=1 if planner.inventory.gpus else MOST_ALIVE,
        ) as arena:
            began = time.monotonic()
            prompt_share = await arena.fit(start, budget_seconds)
            curved = _drafts(model, start, wishes)
            shares = (CURVE_SHARE if curved else 0.0) + (FRONTIER_SHARE if frontier else 0.0)
            result = await tune(
                arena,
                tried,
                start,
                budget_seconds=budget_seconds,
                journal=journal,
                prompt_share=prompt_share,
                began=began,
                held_back_seconds=shares * budget_seconds,
            )
            if frontier:
                traded = await _frontier(arena, result, FRONTIER_SHARE * budget_seconds, journal)
                result = result.but(frontier=traded, spent_seconds=time.monotonic() - began)
            if not curved or MTP not in engine_named(result.settings.engine).features:
                return result
            curve_seconds = budget_seconds - (time.monotonic() - began)
            curve = await measure_curve(arena, result.settings, curve_seconds)
            return result.but(curve=curve, spent_seconds=time.monotonic() - began)

    try:
        return asyncio.run(_stoppable(search())), False
    except KeyboardInterrupt:
        if journal.start is None:
            raise
        return journal.result().but(frontier=traded), True


async def _frontier(
    arena: EngineArena, result: TuneResult, seconds: float, journal: Journal
) -> Frontier:
    work = arena.work
    shortened = work.length(SHORT) < 1
    found = rivals(result, shortened=shortened)
    before, began = journal.spent_seconds, time.monotonic()

    def tell(sentence: str, kind: str = "measured") -> None:
        journal.spent_seconds = before + time.monotonic() - began
        journal.tell(kind, sentence)

    tell(f"speed against waiting: {', '.join(one.label for one in found)}", "race")
    return await measure_frontier(arena, found, work, seconds, noise=result.noise, tell=tell)


def _drafts(model: ModelSpec, start: Settings, wishes: Wishes) -> bool:
    """Whether depth is a question here."""
    return model.mtp_layers > 0 and wishes.mtp is None and start.ngram == "off"


def _candidates(start: Settings) -> tuple[EngineInfo, ...]:
    """Every engine there is, that of the start in any case."""
    found = engines()
    if all(engine.id != start.engine for engine in found):
        found = (*found, engine_named(start.engine))
    return tuple(map(_asked, found))


def _asked(engine: EngineInfo) -> EngineInfo:
    """Which instructions the embedded engine was compiled for, it alone knows; without an answer
    nothing is taken for its twin."""
    if engine.origin != "embedded":
        return engine
    with suppress(EngineError):  # trying it will say why
        return asked(engine)
    return engine


def _needs(forecast: Forecast) -> Callable[[Settings], int]:
    return lambda settings: forecast.trial(settings).total_bytes


def _memory_bytes(planner: Planner) -> int:
    """What the plan may take, all devices together."""
    memory = planner.inventory.memory
    return memory.available_bytes + (0 if memory.unified else sum(planner.gpu_bytes))


async def _stoppable(search: Coroutine[None, None, TuneResult]) -> TuneResult:
    """Ctrl-C and SIGTERM end the search, its engines first; then it is a KeyboardInterrupt."""
    task = asyncio.create_task(search)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _planned(
    model: ModelSpec, machine: Inventory, identity: str, wishes: Wishes, result: TuneResult
) -> Plan:
    """The plan with the settings that were found."""
    full = completed(wishes, result.settings, with_gpus=bool(machine.gpus))
    with planner_of(model, machine, full, identity) as planner:
        plan = told(make_plan(planner, with_alternatives=False), planner)
    return explained(plan, result, wishes)


def _kept(
    model: ModelSpec, identity: str, work: Work, wishes: Wishes, result: TuneResult
) -> Finding | None:
    if found_nothing(result) and not any(tried.pairs for tried in result.trials):
        return None  # nothing was compared, so an earlier result says more
    try:
        paths = [Path(file.location) for file in model.files]
        kept = keep(identity, paths, work, result, fixed_settings(wishes))
    except MoestroError as error:
        return Finding(
            Severity.WARN,
            "tuning-not-kept",
            "The settings that were found could not be kept",
            error.sentence,
            error.hint,
        )
    if kept is not None:
        return None
    return Finding(
        Severity.INFO,
        "tuning-not-kept",
        "What an earlier search found and confirmed for this workload stays in use",
        "this one was stopped, or had no time to confirm what it found",
        "Give it a longer --budget; --output FILE writes this one's plan.",
    )


def _missed(work: Work, result: TuneResult) -> Finding | None:
    """Where the settings that were found miss a limit: which, and how near they came."""
    chosen = next((one for one in result.trials if one.settings == result.settings), None)
    if work.slo is None or chosen is None:
        return None
    limits = {
        "first token": ("ttft_p90_seconds", work.slo.ttft_seconds),
        "time per token": ("time_per_token_p90_seconds", work.slo.inter_token_seconds),
        "whole answer": ("latency_p90_seconds", work.slo.latency_seconds),
    }
    missed = [
        f"{name}: {span(chosen.figures[figure])}, limit {span(limit)}"
        for name, (figure, limit) in limits.items()
        if limit is not None and chosen.figures.get(figure, 0.0) > limit
    ]
    if not missed:
        return None
    return Finding(
        Severity.WARN,
        "slo-missed",
        "The fastest settings that were found do not keep the limits",
        "; ".join(missed),
        "Fewer users at once, a smaller quantization, shorter prompts or a wider limit would help.",
    )
