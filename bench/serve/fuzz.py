"""Sockets that say anything, 10,000 of them that say nothing: what does the gateway do?

    python -m bench.serve.fuzz [--mangled 3000] [--idle 10000] [--examples 100] [--output FILE]

Against a `moestro up demo` in a process of its own: every request of `bench.serve.attacks`, mangled
ones, clients that leave in the middle, slow heads, idle connections. Meanwhile a good client asks
for `/health/live` ten times a second, and for a chat after each part. Three times, so that what the
later rounds add to the gateway's memory, files and threads is growth. Then `schemathesis` on the
OpenAPI document in front of a stub engine, by the suite's own test with more examples.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil

from bench.serve.attacks import HELLO, RAW, Got, mangled, send
from bench.serve.running import Running, keep, up
from moestro.gateway.http_protocol import HEAD_SECONDS, raise_file_limit

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
TOGETHER = 32
SLOW_HEADS = 500
HELD_SECONDS = 5.0


class Sums:
    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, name: str, got: Got) -> None:
        self.answers["closed" if got.status is None else str(got.status)] += 1
        if not got.closed:
            self.wrong.append(f"{name}: no answer and no end")
        if got.status is not None and got.status >= 500:
            self.wrong.append(f"{name}: {got.status}")


@asynccontextmanager
async def good_client(url: str, seconds: list[float]) -> AsyncIterator[None]:
    """How long somebody who behaves waits meanwhile."""

    async def ask() -> None:
        async with aiohttp.ClientSession(url) as http:
            while True:
                began = time.monotonic()
                async with http.get("/health/live") as answer:
                    assert answer.status == 200
                    await answer.read()
                seconds.append(time.monotonic() - began)
                await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def chat(url: str) -> None:
    async with (
        aiohttp.ClientSession(url) as http,
        asyncio.timeout(60),
        http.post("/v1/chat/completions", data=HELLO) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def attack(host: str, port: int, options: argparse.Namespace, sums: Sums) -> None:
    dice = random.Random(options.seed)
    short = sorted(set(RAW) - {"a huge body", "a wide array"})
    jobs: list[tuple[str, bytes, float | None]] = []
    for _ in range(3):
        jobs += [(name, data, None) for name, data in RAW.items()]
    for number in range(options.mangled):
        name = dice.choice(short)
        leaves = 0.02 if number % 5 == 0 else None
        jobs.append((f"mangled {name}", mangled(RAW[name], dice), leaves))
    dice.shuffle(jobs)
    places = asyncio.Semaphore(TOGETHER)

    async def one(name: str, data: bytes, leaves: float | None) -> None:
        async with places:
            got = await send(host, port, data, leave_after=leaves)
            if leaves is None:
                sums.add(name, got)

    await asyncio.gather(*(one(*job) for job in jobs))


async def slow_heads(host: str, port: int) -> dict[str, Any]:
    """One byte a second each; how long until the last one is let go."""
    began = time.monotonic()
    places = [await asyncio.open_connection(host, port) for _ in range(SLOW_HEADS)]
    for _, writer in places:
        writer.write(b"GET /health/live HTTP/1.1\r\nx-slow: ")
    ends = [asyncio.create_task(reader.read()) for reader, _ in places]
    while not all(end.done() for end in ends) and time.monotonic() - began < 2 * HEAD_SECONDS:
        for (_, writer), end in zip(places, ends, strict=True):
            if not end.done():
                with contextlib.suppress(ConnectionError):
                    writer.write(b"y")
        await asyncio.sleep(1)
    held = sum(not end.done() for end in ends)
    for (_, writer), end in zip(places, ends, strict=True):
        end.cancel()
        writer.transport.abort()
    return {"still_held": held, "seconds": time.monotonic() - began}


async def idle(url: str, host: str, port: int, many: int) -> dict[str, Any]:
    places = []
    for number in range(many):
        places.append(await asyncio.open_connection(host, port))
        if number % 500 == 0:
            await asyncio.sleep(0.05)
    began = time.monotonic()
    await chat(url)
    chat_seconds = time.monotonic() - began
    await asyncio.sleep(HELD_SECONDS)
    async with asyncio.timeout(2 * HEAD_SECONDS):
        for reader, writer in places:
            assert await reader.read() == b""
            writer.transport.abort()
    return {"open": many, "chat_seconds": chat_seconds, "closed_after": time.monotonic() - began}


def state(running: Running) -> dict[str, int]:
    process = psutil.Process(running.pid)
    return {
        "rss_bytes": process.memory_info().rss,
        "files": process.num_fds(),
        "threads": process.num_threads(),
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    raise_file_limit()
    rounds = []
    with up(options.arguments) as running:
        place = urlsplit(running.url)
        host, port = str(place.hostname), int(place.port or 0)
        await chat(running.url)
        for number in range(options.rounds):
            sums = Sums()
            waits: list[float] = []
            async with good_client(running.url, waits):
                await attack(host, port, options, sums)
                await chat(running.url)
                slow = await slow_heads(host, port)
                await chat(running.url)
                crowd = await idle(running.url, host, port, options.idle)
            await chat(running.url)
            await asyncio.sleep(2)
            rounds.append(
                {
                    "answers": dict(sorted(sums.answers.items())),
                    "wrong": sums.wrong,
                    "slow_heads": slow,
                    "idle": crowd,
                    "good_client_seconds": {"median": median(waits), "most": max(waits)},
                    "after": state(running),
                }
            )
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
        async with aiohttp.ClientSession(running.url) as http, http.get("/health") as answer:
            health = await answer.json()
    return {
        "rounds": rounds,
        "restarts": health["restarts"],
        "schemathesis": schemathesis(options.examples),
    }


def schemathesis(examples: int) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-q", "--timeout", "1200",
         "tests/gateway/test_openapi.py"],
        cwd=root, env={**os.environ, "MOESTRO_FUZZ_EXAMPLES": str(examples)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {"examples_per_operation": examples, "passed": done.returncode == 0, "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mangled", type=int, default=3000)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("arguments", nargs="*", default=["--parallel", "4", "--context", "1024"])
    options = parser.parse_args()
    keep(options, asyncio.run(run(options)))


if __name__ == "__main__":
    main()
