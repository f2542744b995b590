"""An engine that grows with every request: is it replaced in time, and does anybody notice?

    python -m bench.serve.leak [--requests 2000] [--clients 8] [--leak-mib 2] [--room-mib 512]

A `moestro up demo` as it is, whose engine's process keeps `leak-mib` of each request that was
answered (bench/serve/leaky plants that). It may own `room-mib` more than it does at first. Clients
of the official `openai` library, without its retries, ask without pause, at temperature 0; every
answer is compared with that of a quiet engine, as `bench.serve.kills` does. The engine's memory is
read ten times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil

from bench.serve.kills import Answer, Tally, ask, figures, kinds, load, parts_at_a_tie
from bench.serve.running import Running, keep, up
from moestro.hardware.process_memory import own_bytes
from moestro.units import MIB

RESULTS = Path(__file__).parent / "results" / "leak.json"
LEAKY = Path(__file__).parent / "leaky"
LOOK_SECONDS = 0.1


class Counted(Tally):
    """Tells the engine how many answers there were, and everyone when there are enough."""

    def __init__(self, count: mmap.mmap, requests: int, enough: asyncio.Event) -> None:
        super().__init__()
        self._count, self._requests, self._enough = count, requests, enough

    def add(self, answer: Answer) -> None:
        super().add(answer)
        self._count[:8] = len(self.answers).to_bytes(8, "little")
        if len(self.answers) >= self._requests:
            self._enough.set()


async def watch(running: Running, most: dict[int, int]) -> None:
    """Keeps the most that each engine owned, by process."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            children = psutil.Process(running.pid).children()
        except psutil.Error:
            continue
        for child in children:
            own = own_bytes(child.pid)
            if own is not None:
                most[child.pid] = max(most.get(child.pid, 0), own)


async def run(options: argparse.Namespace, count: mmap.mmap) -> dict[str, Any]:
    with up(options.arguments) as running:
        first = own_bytes(running.engine_pid())
        assert first is not None
    budget = first + options.room_mib * MIB
    memory = ["--engine-memory", str(budget)]
    with (
        tempfile.TemporaryFile("w+") as events,
        up([*options.arguments, *memory], events=events.fileno()) as running,
    ):
        async with (
            openai.AsyncOpenAI(
                api_key="none", base_url=f"{running.url}/v1", max_retries=0
            ) as client,
            aiohttp.ClientSession(running.url) as http,
        ):
            plain = {kind: (await ask(client, kind, False)).said for kind in kinds()}
            enough = asyncio.Event()
            tally = Counted(count, options.requests, enough)
            most: dict[int, int] = {}
            watching = asyncio.create_task(watch(running, most))
            await load(running.url, options.clients, options.seed, enough, tally)
            watching.cancel()
            async with http.get("/health") as answer:
                health = await answer.json()
            events.seek(0)
            told = [line.strip() for line in events if "ready" not in line]
            parted = [a for a in tally.answers if a.error is None and a.said != plain[a.kind]]
            ties = [await parts_at_a_tie(client, a, plain[a.kind]) for a in parted]
    return {
        "budget_bytes": budget,
        "first_bytes": first,
        "load": figures(tally, plain),
        "near_ties": sum(ties),
        "unexplained": len(ties) - sum(ties),
        "replacements": sum(" draining: " in line for line in told),
        "most_bytes": max(most.values()),
        "crashes": health["restarts"],
        "events": told,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--leak-mib", type=int, default=2)
    parser.add_argument("--room-mib", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("arguments", nargs="*", default=["--parallel", "4", "--context", "1024"])
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(LEAKY), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        os.environ["MOESTRO_LEAK_COUNT"] = file.name
        os.environ["MOESTRO_LEAK_BYTES"] = str(options.leak_mib * MIB)
        with mmap.mmap(file.fileno(), 8) as count:
            result = asyncio.run(run(options, count))
    keep(options, result)


if __name__ == "__main__":
    main()
