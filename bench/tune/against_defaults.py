"""Tuned settings against llama-server's own defaults, side by side.

    python -m bench.tune.models
    moestro engines build llama.cpp && moestro engines build ik_llama.cpp
    python -m bench.tune.against_defaults [--model NAME …] [--scenario NAME …] [--budget 150]

For each model and scenario `tune` runs with a budget. Then what it chose and a plain
`llama-server --model FILE --fit on` (`--server`; by default the natively built one) get the same
requests in turns, `--pairs` times, the order swapped each time, each turn `--seconds` long at
least: pairs that neither the search nor its confirmation has seen. Both have the machine to
themselves while they are measured; a pair in which somebody else took part of the processors is
run again once it is quiet (`bench.tune.quiet`), within limits. The ratio is of the objective
(`moestro.tune.workload`), with a 95 % interval. Written after every row; rows that are there are
kept unless they are `disturbed`, `--again` measures all of them anew.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from bench.planner.machine import describe
from bench.tune.defaults import DefaultServer
from bench.tune.models import LARGER, model_path
from bench.tune.quiet import WARM_PARTS, Stolen, in_turns, side, wait
from moestro.cli.tuning import Tuned, tuned
from moestro.engine import Engine
from moestro.engine.protocol import EngineRequest
from moestro.engine.registry import engine_named
from moestro.load.scenarios import SCENARIOS
from moestro.model import ModelSpec, Role
from moestro.planning import Wishes
from moestro.planning.placement import place
from moestro.planning.traffic import read_bytes
from moestro.tune.arena import Sample
from moestro.tune.engine_arena import EngineArena
from moestro.tune.statistics import Noise, Pair, estimate
from moestro.tune.workload import MOST_SESSIONS, Work

RESULTS = Path(__file__).parent / "results"
PEER = "llama.cpp-b11549"
SCENARIO_NAMES = ("chat", "users", "long-prompt", "code-edit", "agent")
PROMPT_HEAVY = ("long-prompt", "agent")
"""Where reading takes most of a request's time: prompts are over ten times as long as answers."""

FIRST_PART = 1_000_000
"""Far from the parts that the search counts up from 0."""


async def compare(found: Tuned, program: Path, pairs: int, seconds: float) -> dict[str, Any]:
    """The chosen settings and plain llama-server in turns of so many seconds, or of one session of
    each user where that takes longer."""
    plan, work = found.plan, replace(found.work, sessions_each=1)
    path = Path(plan.model.files[0].location)
    request = EngineRequest(path, path.stem, plan.settings)
    limit = plan.hardware.memory.available_bytes

    def plain(asked: EngineRequest) -> Engine:
        return DefaultServer(program, asked)

    common: dict[str, Any] = {"needs_bytes": lambda _: 0, "memory_bytes": limit}
    async with (
        EngineArena(request, work, **common) as tuned_arena,
        EngineArena(request, work, make=plain, **common) as plain_arena,
    ):
        arenas = (tuned_arena, plain_arena)
        sides = [side(arena, plan.settings) for arena in arenas]
        turns = await in_turns(sides, 1, FIRST_PART)  # it also says how long a session takes
        if turns.failure is None:
            asked = len(work.sessions(FIRST_PART, 1.0, 4.0)[0].turns)
            each = math.ceil(seconds * turns.of(1)[0].value / work.streams / asked)
            work = replace(work, sessions_each=min(max(each, 1), MOST_SESSIONS))
            tuned_arena.work = plain_arena.work = work
            turns = await in_turns(sides, pairs, FIRST_PART + WARM_PARTS)
    if turns.failure is not None:
        who = ("tuned", "defaults")[turns.failed or 0]
        return {"failed": f"{who}: {turns.failure.sentence}", "outcome": turns.failure.outcome}
    judged = _judged(found, turns.of(0), turns.of(1))
    return {**judged, "thrown_away": turns.thrown_away, "disturbed": turns.disturbed}


def _judged(found: Tuned, ours: list[Sample], theirs: list[Sample]) -> dict[str, Any]:
    pairs = [Pair(math.log(a.value / b.value), 1.0) for a, b in zip(ours, theirs, strict=True)]
    noise = Noise()
    noise.learn("these", pairs)
    ratio = estimate(pairs, noise)
    assert ratio is not None
    return {
        "ratio": ratio.interval.to_json(),
        "ratios": [round(a.value / b.value, 4) for a, b in zip(ours, theirs, strict=True)],
        "tuned": _typical(ours),
        "defaults": _typical(theirs),
        "ceiling": _ceiling(found, ours),
    }


def _typical(samples: list[Sample]) -> dict[str, float]:
    names = sorted({name for sample in samples for name in sample.figures})
    found = {name: median(s.figures[name] for s in samples if name in s.figures) for name in names}
    return {"value": median(sample.value for sample in samples), **found}


def _ceiling(found: Tuned, ours: list[Sample]) -> dict[str, float] | None:
    """Decode as a share of what the memory's bandwidth allows: T streams at once read what every
    token passes, T caches, and E·(1 − (1 − k/E)^T) of E experts."""
    plan = found.plan
    if plan.speed is None or plan.speed.decode_ceiling is None:
        return None
    streams = min(found.work.streams, plan.settings.parallel)
    one = _step_bytes(plan.model, found, 1)
    several = _step_bytes(plan.model, found, streams)
    bandwidth = plan.speed.decode_ceiling * one
    ceiling = streams * bandwidth / several
    rate = streams / _typical(ours)["time_per_token_seconds"]
    return {
        "decode_tokens_per_second": rate,
        "ceiling_tokens_per_second": ceiling,
        "share": rate / ceiling,
    }


def _step_bytes(model: ModelSpec, found: Tuned, streams: int) -> float:
    placement = place(model, found.plan.settings, ())
    depth = found.work.scenario.prompt_tokens + found.work.scenario.output_tokens // 2
    without = sum(read_bytes(model, found.plan.settings, placement, 0).values())
    cache = sum(read_bytes(model, found.plan.settings, placement, depth).values()) - without
    if model.experts is None:
        return without + streams * cache
    count, used = model.experts.count, model.experts.used
    routed = sum(
        tensor.size_bytes
        for tensor in model.tensors
        if tensor.is_routed_expert and tensor.role is not Role.MTP
    )
    touched = 1 - (1 - used / count) ** streams
    return without - routed * used / count + routed * touched + streams * cache


@contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """No other measurement that knows this lock runs meanwhile."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def searched(
    model: str, work: Work, wishes: Wishes, budget: float, acceptance: tuple[float, ...] = ()
) -> tuple[Tuned, float]:
    """A search that begins on a quiet machine, and the part of the processors' time that others
    took from it."""
    wait()
    stolen = Stolen()
    found = tuned(model, work, wishes, budget, lambda _: None, synthetic_acceptance=acceptance)
    return found, stolen()


def row(model: str, scenario: str, program: Path, options: argparse.Namespace) -> dict[str, Any]:
    work = Work(SCENARIOS[scenario], SCENARIOS[scenario].concurrency)
    # What random weights write repeats itself, so drafts from the text would look too good.
    wishes = Wishes() if model == "demo" else Wishes(ngram="off")
    found, stolen = searched(str(model_path(model)), work, wishes, options.budget)
    result = found.result
    compared = asyncio.run(compare(found, program, options.pairs, options.seconds))
    return {
        "model": model,
        "scenario": scenario,
        "machine": describe(),
        "streams": work.streams,
        "engine": result.settings.engine,
        "settings": result.settings.to_json(),
        "gain_over_start": None if result.gain is None else result.gain.to_json(),
        "noise": result.noise,
        "tune_seconds": result.spent_seconds,
        "stolen_from_search": stolen,
        "complete": result.complete,
        "trials": [
            {
                "label": tried.label,
                "outcome": tried.outcome,
                "ratio": None if tried.ratio is None else tried.ratio.to_json(),
                "pairs": tried.pairs,
            }
            for tried in result.trials
            if tried.outcome not in ("excluded", "not-reached")
        ],
        **compared,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ran = [one for one in rows if "ratio" in one]
    ratios = {(one["model"], one["scenario"]): one["ratio"]["expected"] for one in ran}
    larger = [ratio for (model, _), ratio in ratios.items() if model != "demo"]
    heavy = [r for (m, s), r in ratios.items() if m != "demo" and s in PROMPT_HEAVY]
    scenarios = {
        name: geometric_mean(r for (m, s), r in ratios.items() if s == name and m != "demo")
        for name in SCENARIO_NAMES
        if any(s == name and m != "demo" for m, s in ratios)
    }
    return {
        "rows": len(ran),
        "geometric_mean_by_scenario": scenarios,
        "geometric_mean_larger": geometric_mean(larger) if larger else None,
        "geometric_mean_prompt_heavy": geometric_mean(heavy) if heavy else None,
        "least": min(ratios.values(), default=None),
    }


def built() -> Path:
    """The natively built llama-server."""
    program = engine_named(PEER).program
    assert program is not None
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=[*LARGER, "demo"])
    parser.add_argument("--scenario", nargs="*", default=list(SCENARIO_NAMES))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of each search")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn, at least")
    parser.add_argument("--server", type=Path, help="the llama-server to compare with")
    parser.add_argument("--lock", type=Path, help="a file to lock while measuring")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "against_defaults.json")
    options = parser.parse_args()
    program: Path = options.server or built()
    kept = json.loads(options.output.read_text()) if options.output.exists() else {}
    rows = kept.get("rows", [])
    for scenario in options.scenario:
        for model in options.model:
            before = [one for one in rows if (one["model"], one["scenario"]) == (model, scenario)]
            if before and not before[0].get("disturbed") and not options.again:
                continue
            with alone(options.lock):
                new = row(model, scenario, program, options)
            rows = [one for one in rows if (one["model"], one["scenario"]) != (model, scenario)]
            rows.append(new)
            found = {"summary": summary(rows), "rows": rows}
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            said = new.get("ratio", new)
            print(f"{model:24} {scenario:12} {new['engine']:22} {said}", flush=True)
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
