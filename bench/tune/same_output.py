"""Does speculation change what a model says? At temperature 0 it must not, but for near ties.

    python -m bench.tune.same_output [--model demo …] [--prompts 12] [--output FILE]

Checking n tokens at once adds up in another order than one token at a time, so the last digits of
the logits differ. Where the two best tokens are closer than that, either may win, and the texts
part. So at the first difference the plain run's own log-probabilities are looked at: a *near tie*
is a token that lies at most NEAR below the best one there. Anything else is a defect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from bench.planner.machine import describe
from bench.tune.models import DRAFTING, model_path
from moestro.engine.protocol import EngineRequest
from moestro.engine.start import make_engine
from moestro.load.scenario import Turn
from moestro.load.scenarios import SCENARIOS
from moestro.model import read_model
from moestro.planning.settings import Settings

RESULTS = Path(__file__).parent / "results"
BASE = Settings(context=4096, parallel=1, threads=2)
NEAR = 0.05
"""Nats between two tokens that rounding may swap: about what an F16 cache and 8-bit activations
leave uncertain."""

TOP = 5
ANSWER_TOKENS = 96
SCENARIO_NAMES = ("chat", "code-edit", "agent")


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    logprob: float
    best: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """At `position` the plain run had `plain`, the other `other`, which lay `gap` nats below the
    best; None if it was not among the best few."""

    position: int
    plain: int
    other: int
    gap: float | None

    @property
    def near_tie(self) -> bool:
        return self.gap is not None and self.gap <= NEAR


def difference(plain: Sequence[Token], other: Sequence[Token]) -> Difference | None:
    """The first place at which the texts part, None if they do not."""
    for place, (ours, theirs) in enumerate(zip(plain, other, strict=False)):
        if ours.id != theirs.id:
            best = dict(ours.best)
            gap = max(best.values()) - best[theirs.id] if theirs.id in best else None
            return Difference(place, ours.id, theirs.id, gap)
    if len(plain) != len(other):
        return Difference(min(len(plain), len(other)), -1, -1, None)
    return None


def speculative(model: str) -> list[Settings]:
    """What speculates with this model."""
    depths = [replace(BASE, mtp_depth=depth) for depth in (1, 2, 4)]
    mtp = read_model(model_path(model)).mtp_layers
    kinds = [replace(BASE, ngram=kind) for kind in ("simple", "map-k", "mod", "cache")]
    return [*(depths if mtp else []), *kinds]


async def answers(model: Path, settings: Settings, turns: Sequence[Turn]) -> list[list[Token]]:
    """What the model says at temperature 0 to each of `turns`."""
    engine = make_engine(EngineRequest(model, "model", settings))
    await engine.start(300)
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    try:
        async with aiohttp.ClientSession(engine.address, headers=headers) as client:
            return [await _answer(client, turn) for turn in turns]
    finally:
        await engine.stop()


async def _answer(client: aiohttp.ClientSession, turn: Turn) -> list[Token]:
    body = {
        **turn.options,
        "messages": list(turn.messages),
        "max_tokens": min(turn.max_tokens, ANSWER_TOKENS),
        "temperature": 0,
        "cache_prompt": False,
        "logprobs": True,
        "top_logprobs": TOP,
    }
    async with client.post("/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        answer = await response.json()
    content = (answer["choices"][0].get("logprobs") or {}).get("content") or []
    return [
        Token(
            entry["id"],
            entry["logprob"],
            tuple((one["id"], one["logprob"]) for one in entry["top_logprobs"]),
        )
        for entry in content
    ]


def prompts(count: int) -> list[Turn]:
    """As many of each scenario; tool calls are left out, they have no text to compare."""
    found = []
    for name in SCENARIO_NAMES:
        for session in islice(SCENARIOS[name].sessions(7, 3.0), count):
            turn = session.turns[0]
            found.append(replace(turn, options={}))
    return found


async def compare(model: str, count: int) -> list[dict[str, Any]]:
    turns = prompts(count)
    plain = await answers(model_path(model), BASE, turns)
    rows = []
    for settings in speculative(model):
        other = await answers(model_path(model), settings, turns)
        found = [difference(a, b) for a, b in zip(plain, other, strict=True)]
        parted = [one for one in found if one is not None]
        defects = [asdict(one) for one in parted if not one.near_tie]
        rows.append(
            {
                "model": model,
                "mtp_depth": settings.mtp_depth,
                "ngram": settings.ngram,
                "answers": len(turns),
                "tokens": sum(map(len, plain)),
                "equal": len(turns) - len(parted),
                "near_ties": sum(one.near_tie for one in parted),
                "defects": defects,
                "gaps": [one.gap for one in parted],
            }
        )
        print(
            f"{model:26} mtp {settings.mtp_depth} ngram {settings.ngram:8} "
            f"{rows[-1]['equal']}/{len(turns)} equal, {rows[-1]['near_ties']} near ties, "
            f"{len(defects)} defects",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=["demo", *DRAFTING])
    parser.add_argument("--prompts", type=int, default=6, help="of each scenario")
    parser.add_argument("--output", type=Path, default=RESULTS / "same_output.json")
    options = parser.parse_args()
    rows = [row for model in options.model for row in asyncio.run(compare(model, options.prompts))]
    found = {"machine": describe(), "near": NEAR, "rows": rows}
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
