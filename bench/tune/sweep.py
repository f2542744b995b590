"""The tuner against an exhaustive sweep of a reduced space: how near, and in what part of the time?

    python -m bench.tune.sweep [--model NAME] [--prompt 256] [--answer 32] [--rounds 3]

Every settings of the reduced space (engine, repacking, ubatch, threads, flash attention) run
`--rounds` parts of the workload, one settings after the other, engine starts included in the time.
Of so many noisy figures the largest is partly luck: so the best few of the sweep and the tuner's
choice then run beside each other, `--finals` times in turns, on parts that neither has seen.
`share` is the tuner's choice over the best of these. The tuner gets `--part` of the sweep's time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.planner.machine import describe
from bench.tune.against_defaults import alone, searched
from bench.tune.models import model_path
from bench.tune.quiet import Stolen, side, wait, warmed_turns
from moestro.engine.protocol import EngineRequest
from moestro.engine.registry import REPACK, EngineInfo, engines
from moestro.load import random_scenario
from moestro.model import ModelSpec, read_model
from moestro.planning import Wishes
from moestro.planning.settings import Settings
from moestro.tune.arena import Failure
from moestro.tune.engine_arena import EngineArena
from moestro.tune.workload import Work

RESULTS = Path(__file__).parent / "results"
UBATCHES = (128, 512, 1024)
THREADS = (1, 2)
ATTENTION = ("auto", "off")
CONTEXT = 4096
FIRST_PART, FINAL_PART = 5_000_000, 6_000_000
BEST = 4
MEMORY_BYTES = 1 << 36


def reduced(found: tuple[EngineInfo, ...], model: ModelSpec) -> list[Settings]:
    """All combinations that the engines can run."""
    made = []
    for engine in found:
        if engine.runs(model.architecture) is False:
            continue
        repacks = (True, False) if REPACK in engine.features else (True,)
        for repack, ubatch, threads, attention in itertools.product(
            repacks, UBATCHES, THREADS, ATTENTION
        ):
            made.append(
                Settings(
                    context=CONTEXT, parallel=1, threads=threads, ubatch=ubatch, repack=repack,
                    flash_attention=attention, engine=engine.id,  # type: ignore[arg-type]
                )
            )  # fmt: skip
    return made


async def sweep(path: Path, work: Work, every: list[Settings], rounds: int) -> dict[str, Any]:
    values: dict[Settings, float] = {}
    failed: dict[str, int] = {}
    request = EngineRequest(path, path.stem, every[0])
    wait()
    began, stolen = time.monotonic(), Stolen()
    async with EngineArena(
        request, work, needs_bytes=lambda _: 0, memory_bytes=MEMORY_BYTES, most_alive=1
    ) as arena:
        for settings in every:
            seen = []
            for number in range(rounds):
                sample = await arena.measure(settings, part=FIRST_PART + number, share=1.0)
                if isinstance(sample, Failure):
                    failed[sample.sentence] = failed.get(sample.sentence, 0) + 1
                    break
                seen.append(sample.value)
            if len(seen) == rounds:
                values[settings] = median(seen)
    seconds = time.monotonic() - began
    return {"values": values, "failed": failed, "seconds": seconds, "stolen": stolen()}


async def finals(path: Path, work: Work, rivals: list[Settings], rounds: int) -> list[list[float]]:
    """The values of each rival, round by round."""
    request = EngineRequest(path, path.stem, rivals[0])
    async with EngineArena(
        request, work, needs_bytes=lambda _: 0, memory_bytes=MEMORY_BYTES, most_alive=len(rivals)
    ) as arena:
        sides = [side(arena, rival) for rival in rivals]
        turns = await warmed_turns(sides, rounds, FINAL_PART)
    if turns.failure is not None:
        raise RuntimeError(turns.failure.sentence)
    return [[one.value for one in turns.of(place)] for place in range(len(rivals))]


def run(options: argparse.Namespace) -> dict[str, Any]:
    path = model_path(options.model)
    work = Work(random_scenario(options.prompt, options.answer), 1, sessions_each=1)
    every = reduced(engines(), read_model(path))
    swept = asyncio.run(sweep(path, work, every, options.rounds))
    values: dict[Settings, float] = swept["values"]
    best = sorted(values, key=lambda one: values[one], reverse=True)[:BEST]
    wishes = Wishes(
        context=CONTEXT, parallel=1, mtp=0, ngram="off", load_mode="auto", cache_type="f16",
        prompt_cache_bytes=0, context_checkpoints=0,
    )  # fmt: skip
    budget = options.part * swept["seconds"]
    found, stolen = searched(str(path), work, wishes, budget)
    chosen = found.result.settings
    rivals = [chosen, *(one for one in best if one != chosen)]
    rounds = asyncio.run(finals(path, work, rivals, options.finals))
    ratios = [median(a / b for a, b in zip(rounds[0], other, strict=True)) for other in rounds]
    return {
        "model": options.model,
        "prompt": options.prompt,
        "answer": options.answer,
        "settings": len(every),
        "failed": swept["failed"],
        "sweep_seconds": swept["seconds"],
        "stolen_from_sweep": swept["stolen"],
        "stolen_from_search": stolen,
        "tune_seconds": found.result.spent_seconds,
        "time_part": found.result.spent_seconds / swept["seconds"],
        "share": min(ratios),
        "ratios_to_best_few": ratios[1:],
        "chosen": chosen.to_json(),
        "best_few": [one.to_json() for one in rivals[1:]],
        "spread_of_sweep": max(values.values()) / min(values.values()),
        "start_to_best": values.get(_like(found.before.settings, values), 0.0)
        / max(values.values()),
    }


def _like(start: Settings, values: dict[Settings, float]) -> Settings:
    """The settings of the sweep that are as those that the planner starts with."""
    names = ("engine", "repack", "ubatch", "threads", "flash_attention")
    for one in values:
        if all(getattr(one, name) == getattr(start, name) for name in names):
            return one
    return replace(start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen3moe-1.6b-Q4_K_M")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--finals", type=int, default=5)
    parser.add_argument("--part", type=float, default=0.15)
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "sweep.json")
    options = parser.parse_args()
    with alone(options.lock):
        new = run(options)
    rows = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    rows = [*(row for row in rows if _key(row) != _key(new)), new]
    found = {"machine": describe(), "rows": rows}
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in new.items() if name != "best_few"}, indent=1))


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["prompt"], row["answer"]


if __name__ == "__main__":
    main()
