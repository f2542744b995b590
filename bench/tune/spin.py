"""How long an engine's threads should wait for each other awake: `GOMP_SPINCOUNT`.

    python -m bench.tune.spin [--engine ID …] [--model NAME …] [--together]

A server with two threads answers one chat request, then is ended: one server after the other, with
each count in turn, the order turned round each time, so that no idle one spins beside the one that
is measured. `none` leaves it to the engine (libgomp: 300,000). With `--together` two servers with
the same count answer at the same time. Tokens per second of writing and of reading, and the part of
the processors' time that other guests of the host took meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench.planner.machine import describe
from bench.tune.defaults import DefaultServer
from bench.tune.models import model_path
from bench.tune.quiet import Stolen
from moestro.engine.protocol import EngineRequest
from moestro.engine.registry import engine_named
from moestro.planning.settings import Settings

RESULTS = Path(__file__).parent / "results" / "spin.json"
COUNTS = ("1000", "100000", "none", "3000000", "10000000")
PROMPT = "Tell a story about " + "a cat and a dog, " * 24
ANSWER_TOKENS = 48
WARM_UP_TOKENS = 4


async def answer(server: DefaultServer, number: int, tokens: int) -> dict[str, Any]:
    body = {
        "prompt": f"{number}. {PROMPT}",
        "n_predict": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": False,
    }
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with (
        aiohttp.ClientSession(server.address, headers=headers) as client,
        client.post("/completion", json=body) as reply,
    ):
        reply.raise_for_status()
        timings: dict[str, Any] = (await reply.json())["timings"]
        return timings


async def measured(program: Path, model: Path, count: str, servers: int, number: int) -> Any:
    if count == "none":
        os.environ.pop("GOMP_SPINCOUNT", None)
    else:
        os.environ["GOMP_SPINCOUNT"] = count
    request = EngineRequest(model, "model", Settings(context=4096, parallel=1, threads=2))
    run = [DefaultServer(program, request) for _ in range(servers)]
    try:
        await asyncio.gather(*(one.start() for one in run))
        await asyncio.gather(*(answer(one, -1, WARM_UP_TOKENS) for one in run))
        stolen = Stolen()
        found = await asyncio.gather(*(answer(one, number, ANSWER_TOKENS) for one in run))
        return {
            "write": min(one["predicted_per_second"] for one in found),
            "read": min(one["prompt_per_second"] for one in found),
            "stolen": stolen(),
        }
    finally:
        await asyncio.gather(*(one.stop() for one in run))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", nargs="*", default=["llama.cpp-b11549"])
    parser.add_argument("--model", nargs="*", default=["qwen3moe-0.7b-Q4_K_M"])
    parser.add_argument("--count", nargs="*", default=list(COUNTS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    servers = 2 if options.together else 1
    for engine in options.engine:
        program = engine_named(engine).program
        assert program is not None
        for model in options.model:
            runs: dict[str, list[Any]] = {count: [] for count in options.count}
            for number in range(options.rounds):
                for count in options.count if number % 2 else reversed(options.count):
                    one = measured(program, model_path(model), count, servers, number)
                    runs[count].append(asyncio.run(one))
            for count, seen in runs.items():
                row = {"engine": engine, "model": model, "servers": servers, "count": count}
                for name in ("write", "read", "stolen"):
                    row[name] = median(one[name] for one in seen)
                    row[f"every_{name}"] = [round(one[name], 2) for one in seen]
                key = ("engine", "model", "servers", "count")
                rows = [old for old in rows if any(old[name] != row[name] for name in key)]
                rows.append(row)
                print(
                    f"{engine:20} {model:24} {servers} at once {count:>9} "
                    f"write {row['write']:6.1f} read {row['read']:6.1f} stolen {row['stolen']:.2f}",
                    flush=True,
                )
            found = {"machine": describe(), "rows": rows}
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
