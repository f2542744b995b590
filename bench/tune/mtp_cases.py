"""Is the drafting depth that `tune` chooses the right one? Made cases, each swept as well.

    python -m bench.tune.models
    python -m bench.tune.mtp_cases [--only PART …] [--budget 60] [--rounds 4]

In each case `tune` chooses, everything but drafting fixed. Then every depth from 0 to 4 gets the
same requests in turns, `--rounds` times, the order turned round each time: parts that the search
has not seen. `share` is the chosen depth's speed in that sweep over the best one's, by medians of
ratios within rounds.

Random weights never guess right, so their acceptance is set: position by position the probability
that it and all before it are accepted. That exists in llama.cpp only, so the engine is the embedded
one. The demo's acceptance is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.planner.machine import describe
from bench.tune.against_defaults import alone, searched
from bench.tune.models import model_path
from bench.tune.quiet import side, warmed_turns
from moestro.cli.tuning import Tuned
from moestro.engine.protocol import EngineRequest
from moestro.load import SCENARIOS, Scenario, random_scenario
from moestro.planning import Wishes
from moestro.tune.engine_arena import EngineArena
from moestro.tune.workload import Work

RESULTS = Path(__file__).parent / "results"
DEPTHS = (0, 1, 2, 3, 4)
FIRST_PART = 3_000_000
NEARLY_ALWAYS = (0.98, 0.96, 0.93, 0.9)
WELL = (0.85, 0.72, 0.6, 0.5)
FAIRLY = (0.7, 0.45, 0.28, 0.18)
BADLY = (0.35, 0.12, 0.04, 0.01)


@dataclass(frozen=True, slots=True)
class Case:
    """`acceptance` empty means the model's own, on the chat scenario. Requests that take long need
    `budgets` times the usual budget."""

    model: str
    acceptance: tuple[float, ...]
    streams: int = 1
    prompt: int = 64
    answer: int = 96
    budgets: int = 1

    @property
    def name(self) -> str:
        kind = {
            NEARLY_ALWAYS: "nearly always",
            WELL: "well",
            FAIRLY: "fairly",
            BADLY: "badly",
            (): "own",
        }[self.acceptance]
        return f"{self.model} {kind} s{self.streams} p{self.prompt}"

    @property
    def scenario(self) -> Scenario:
        if not self.acceptance:
            return SCENARIOS["chat"] if self.prompt < 1000 else SCENARIOS["long-prompt"]
        return random_scenario(self.prompt, self.answer, self.streams)


CASES = (
    Case("demo", ()),
    Case("demo", (), streams=4),
    Case("demo", (), prompt=2048),
    Case("mtp-qwen35-0.1b-Q8_0", WELL),
    Case("mtp-qwen35-0.1b-Q8_0", FAIRLY, streams=4),
    Case("mtp-qwen35-0.1b-Q8_0", WELL, prompt=2048, answer=64, budgets=2),
    Case("mtp-qwen35-0.7b-Q4_K_M", WELL),
    Case("mtp-qwen35-0.7b-Q4_K_M", FAIRLY),
    Case("mtp-qwen35-0.7b-Q4_K_M", WELL, streams=8, answer=48, budgets=2),
    Case("mtp-qwen35-0.7b-F16", WELL, answer=64, budgets=2),
    Case("mtp-qwen35-0.7b-F16", NEARLY_ALWAYS, answer=64, budgets=2),
    Case("mtp-qwen35-2b-Q4_K_M", WELL, answer=64, budgets=2),
    Case("mtp-qwen35moe-0.4b-Q4_K_M", WELL),
    Case("mtp-qwen35moe-0.4b-Q4_K_M", BADLY, streams=2),
    Case("mtp-qwen35moe-1.6b-Q4_K_M", WELL, budgets=2),
    Case("mtp-qwen35moe-1.6b-Q4_K_M", FAIRLY, streams=4, answer=64, budgets=2),
)


async def sweep(found: Tuned, case: Case, rounds: int) -> dict[str, Any]:
    plan = found.plan
    path = Path(plan.model.files[0].location)
    base = replace(plan.settings, ngram="off")
    request = EngineRequest(path, path.stem, base, None, case.acceptance)
    async with EngineArena(
        request,
        replace(found.work, sessions_each=1),
        needs_bytes=lambda _: 0,
        memory_bytes=plan.hardware.memory.available_bytes,
        most_alive=len(DEPTHS),
    ) as arena:
        sides = [side(arena, replace(base, mtp_depth=depth)) for depth in DEPTHS]
        turns = await warmed_turns(sides, rounds, FIRST_PART)
    if turns.failure is not None:
        return {"failed": f"depth {DEPTHS[turns.failed or 0]}: {turns.failure.sentence}"}
    samples = {depth: turns.of(place) for place, depth in enumerate(DEPTHS)}
    speeds = {depth: [one.value for one in seen] for depth, seen in samples.items()}
    accepted = {depth: s[-1].figures.get("acceptance", 0.0) for depth, s in samples.items()}
    best = [max(speeds[depth][number] for depth in DEPTHS) for number in range(rounds)]
    plain = speeds[0]
    ratios = {
        depth: median(a / b for a, b in zip(speeds[depth], plain, strict=True)) for depth in DEPTHS
    }
    return {
        "ratio_to_none": ratios,
        "best": max(ratios, key=lambda depth: ratios[depth]),
        "values": speeds,
        "acceptance": accepted,
        "scatter": median(max(v) / min(v) - 1 for v in speeds.values()),
        "best_of_round": best,
        "thrown_away": turns.thrown_away,
        "disturbed": turns.disturbed,
    }


def run(case: Case, budget: float, rounds: int) -> dict[str, Any]:
    work = Work(case.scenario, case.streams)
    wishes = Wishes(
        context=4096, parallel=max(case.streams, 1), threads=2, threads_batch=2, ubatch=512,
        batch=512, flash_attention="auto", repack=True, load_mode="auto", ngram="off",
        engine="embedded", cache_type="f16",
    )  # fmt: skip
    found, stolen = searched(str(model_path(case.model)), work, wishes, budget, case.acceptance)
    chosen = found.result.settings.mtp_depth
    swept = asyncio.run(sweep(found, case, rounds))
    row = {
        "case": case.name,
        "chosen": chosen,
        "p_min": found.result.settings.mtp_p_min,
        "tune_seconds": found.result.spent_seconds,
        "stolen_from_search": stolen,
        "gain": None if found.result.gain is None else found.result.gain.to_json(),
        **swept,
    }
    if "ratio_to_none" in swept:
        ratios = swept["ratio_to_none"]
        row["share"] = ratios[chosen] / max(ratios.values())
    curve = found.result.curve
    row["curve"] = None if curve is None else curve.to_json()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="parts of cases' names")
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "mtp_cases.json")
    options = parser.parse_args()
    rows = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    for case in CASES:
        if not any(part in case.name for part in options.only):
            continue
        with alone(options.lock):
            new = run(case, case.budgets * options.budget, options.rounds)
        rows = [*(row for row in rows if row["case"] != case.name), new]
        found = {"machine": describe(), "rows": rows}
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        ratios = {d: round(r, 2) for d, r in new.get("ratio_to_none", {}).items()}
        share = new.get("share")
        print(
            f"{case.name:44} chosen {new['chosen']} best {new.get('best')} "
            f"share {share if share is None else round(share, 3)} {ratios} "
            f"{new.get('failed', '')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
