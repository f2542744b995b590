"""`kill -9` of the engine at random moments, under mixed clients: what do they notice?

    python -m bench.serve.kills [--kills 200] [--clients 16] [--seed 1] [--output FILE]

Clients of the official `openai` library, without its retries, ask a `moestro up demo` without
pause: chats, completions, tool calls, JSON schemas, several answers at once; streamed and whole,
all at temperature 0. First without kills, then with them. An answer should be that of a quiet
engine. One that is not is looked at where it parts from it: with one of the two best tokens there,
less than `TIE` apart in log-probability, it is a near-tie, which batching alone brings about (the
run without kills shows how often); anything else counts as corrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
import openai
import psutil

from bench.serve.running import Running, keep, up

TIE = 0.5
"""Difference of log-probabilities up to which two tokens count as tied."""

RESULTS = Path(__file__).parent / "results" / "kills.json"

STORIES = (
    "Tell me a short story.",
    "Tell me a story about a cat.",
    "Tell me a story about a river.",
    "Write a story about a lost key.",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "city": {"type": "string"}},
            "required": ["name", "city"],
        },
    },
}


def kinds() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(STORIES):
        said = [{"role": "user", "content": text}]
        found[f"chat {number}"] = {"messages": said, "max_tokens": 120}
        found[f"schema {number}"] = {
            "messages": said, "max_tokens": 60, "response_format": SCHEMA,
        }  # fmt: skip
    for number, city in enumerate(("Paris", "Rome")):
        said = [{"role": "user", "content": f"What is the weather in {city}?"}]
        found[f"tool {number}"] = {"messages": said, "max_tokens": 64, "tools": [WEATHER]}
    found["several"] = {
        "messages": [{"role": "user", "content": STORIES[0]}], "max_tokens": 40, "n": 2,
    }  # fmt: skip
    found["completion"] = {"prompt": "Once upon a time", "max_tokens": 80}
    return found


@dataclass
class Answer:
    kind: str
    streamed: bool
    seconds: float
    said: str
    error: str | None = None
    ended: float = field(default_factory=time.monotonic)


@dataclass
class Tally:
    answers: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)


async def ask(client: openai.AsyncOpenAI, kind: str, streamed: bool) -> Answer:
    fields = {"model": "default", "temperature": 0, **kinds()[kind]}
    began = time.monotonic()
    create: Any = (client if "prompt" in fields else client.chat).completions.create
    try:
        if streamed:
            said = await _streamed(create, fields)
        else:
            said = _whole(await create(**fields))
    except openai.OpenAIError as error:
        return Answer(
            kind, streamed, time.monotonic() - began, "", f"{type(error).__name__}: {error}"
        )
    return Answer(kind, streamed, time.monotonic() - began, said)


def _whole(answer: Any) -> str:
    texts = []
    for choice in sorted(answer.choices, key=lambda one: one.index):
        message = getattr(choice, "message", None)
        text = choice.text if message is None else message.content or ""
        for call in (message.tool_calls or ()) if message is not None else ():
            text += f"<{call.function.name}>{call.function.arguments}"
        texts.append(f"{text}|{choice.finish_reason}")
    return "\n".join(texts)


async def _streamed(create: Any, fields: dict[str, Any]) -> str:
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    ids = set()
    async with await create(**fields, stream=True) as stream:
        async for event in stream:
            ids.add(event.id)
            for choice in event.choices:
                delta = getattr(choice, "delta", None)
                text = choice.text if delta is None else delta.content or ""
                for call in (delta.tool_calls or ()) if delta is not None else ():
                    name = call.function.name
                    text += f"<{name}>" if name else ""
                    text += call.function.arguments or ""
                texts[choice.index] = texts.get(choice.index, "") + (text or "")
                if choice.finish_reason:
                    assert choice.index not in reasons, "it ended twice"
                    reasons[choice.index] = choice.finish_reason
    assert len(ids) == 1, "one answer has one name"
    return "\n".join(f"{texts[index]}|{reasons.get(index)}" for index in sorted(texts))


async def load(
    url: str, clients: int, seed: int, enough: asyncio.Event, tally: Tally | None = None
) -> Tally:
    tally = tally if tally is not None else Tally()

    async def one(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        async with openai.AsyncOpenAI(
            api_key="none", base_url=f"{url}/v1", max_retries=0, timeout=300
        ) as client:
            while not enough.is_set():
                tally.add(await ask(client, dice.choice(sorted(kinds())), dice.random() < 0.7))

    await asyncio.gather(*(one(number) for number in range(clients)))
    return tally


async def kill_often(running: Running, kills: int, seed: int) -> list[float]:
    """Seconds from each kill until the endpoint was ready again."""
    dice = random.Random(seed)
    gaps = []
    async with aiohttp.ClientSession(running.url) as http:
        for number in range(kills):
            await asyncio.sleep(dice.uniform(0.05, 2.0))
            began = time.monotonic()
            os.kill(running.engine_pid(), signal.SIGKILL)
            red = False
            while True:
                await asyncio.sleep(0.01)
                async with http.get("/health") as answer:
                    if red and answer.status == 200:
                        break
                    red = red or answer.status == 503
            gaps.append(time.monotonic() - began)
            if number % 20 == 19:
                print(f"{number + 1} kills", flush=True)
    return gaps


async def parts_at_a_tie(client: openai.AsyncOpenAI, answer: Answer, plain: str) -> bool:
    """Whether an answer leaves the plain one where two tokens are about as likely."""
    fields = kinds()[answer.kind]
    if "messages" not in fields or "tools" in fields or fields.get("n"):
        return False
    said, other = answer.said.rsplit("|", 1)[0], plain.rsplit("|", 1)[0]
    length = next(
        (at for at, (a, b) in enumerate(zip(said, other, strict=False)) if a != b),
        min(len(said), len(other)),
    )
    common = said[:length]
    for back in range(12):  # the tokens may have begun a few characters before
        text = common[: len(common) - back]
        found = await client.chat.completions.create(
            model="default", temperature=0, max_tokens=1, logprobs=True, top_logprobs=5,
            messages=[*fields["messages"], {"role": "assistant", "content": text}],
            extra_body={"continue_final_message": "content", "add_generation_prompt": False},
        )  # fmt: skip
        logprobs = found.choices[0].logprobs
        if logprobs is None or not logprobs.content:
            continue
        best = logprobs.content[0].top_logprobs
        fits = [
            {whole for whole in (said, other) if whole[len(text) :].startswith(one.token)}
            for one in best
        ]
        pairs = [
            (a, b)
            for place, a in enumerate(best)
            for rank, b in enumerate(best[place + 1 :], place + 1)
            if fits[place] and fits[rank] and fits[place] != fits[rank]
        ]
        if any(a.logprob - b.logprob <= TIE for a, b in pairs):
            return True
    return False


def figures(tally: Tally, plain: dict[str, str]) -> dict[str, Any]:
    answers = tally.answers
    seconds = sorted(answer.seconds for answer in answers)
    return {
        "requests": len(answers),
        "failed": sum(answer.error is not None for answer in answers),
        "errors": Counter(answer.error for answer in answers if answer.error).most_common(5),
        "other_than_plain": sum(a.error is None and a.said != plain[a.kind] for a in answers),
        "seconds_median": median(seconds),
        "seconds_p99": quantiles(seconds, n=100)[98] if len(seconds) > 1 else seconds[0],
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    with up(options.arguments) as running:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=f"{running.url}/v1", max_retries=0
        ) as client:
            plain = {kind: (await ask(client, kind, False)).said for kind in kinds()}
            enough = asyncio.Event()
            quiet = asyncio.create_task(load(running.url, options.clients, options.seed, enough))
            await asyncio.sleep(options.quiet_seconds)
            enough.set()
            before = await quiet
            enough, started = asyncio.Event(), time.monotonic()
            busy = asyncio.create_task(load(running.url, options.clients, options.seed + 1, enough))
            gaps = await kill_often(running, options.kills, options.seed)
            enough.set()
            after = await busy
            parted = [a for a in after.answers if a.error is None and a.said != plain[a.kind]]
            ties = [await parts_at_a_tie(client, a, plain[a.kind]) for a in parted]
            corrupted = [a for a, tie in zip(parted, ties, strict=True) if not tie]
        memory = psutil.Process(running.pid).memory_info().rss
    return {
        "kills": len(gaps),
        "away_seconds_median": median(gaps),
        "away_seconds_most": max(gaps),
        "without_kills": figures(before, plain),
        "with_kills": figures(after, plain),
        "near_ties": sum(ties),
        "unexplained": [
            {
                "kind": a.kind,
                "streamed": a.streamed,
                "said": a.said,
                "plain": plain[a.kind],
                "began": a.ended - a.seconds - started,
                "ended": a.ended - started,
            }
            for a in corrupted
        ],
        "gateway_rss_bytes": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--quiet-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("arguments", nargs="*", default=["--parallel", "4", "--context", "1024"])
    options = parser.parse_args()
    keep(options, asyncio.run(run(options)))


if __name__ == "__main__":
    main()
