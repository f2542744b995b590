"""The search on machines that exist on paper, where the best settings are known.

    python -m bench.tune.simulated --seeds 200

Each seed draws another machine and workload. Nothing runs, so it says how good the decisions are
under noise that is known, not how fast anything is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.tune.world import START, Effects, World, everything, sweep_seconds, world_space

from moestro.tune.search import tune

SPACES: dict[str, tuple[str, ...]] = {
    "reduced": ("ubatch", "threads", "flash_attention"),
    "whole": (),
}
MACHINES: dict[str, dict[str, float]] = {
    "noise 1 %": {"noise": 0.01},
    "noise 3 %": {"noise": 0.03},
    "noise 10 %": {"noise": 0.10},
    "noise 3 %, 3 % spikes": {"noise": 0.03, "spikes": 0.03},
    "noise 3 %, strong drift": {"noise": 0.03, "drift": 0.2},
    "noise 3 %, room for one engine": {"noise": 0.03, "room": 1},
}
SWEEP_SAMPLES = 3
"""Whole parts of each settings that the sweep would run: as many as a confirmation has pairs."""


@dataclass(frozen=True)
class Outcome:
    of_best: float
    of_start: float
    time_share: float
    covered: bool | None
    changed: bool
    false_change: bool
    samples: int
    over_budget: float


def one(seed: int, names: tuple[str, ...], machine: dict[str, float], budget: float) -> Outcome:
    """`budget` as a share of the sweep's time."""
    effects = Effects.drawn(random.Random(seed))
    world = World(effects, seed, **machine)  # type: ignore[arg-type]
    space = world_space(effects, *names)
    sweep = sweep_seconds(world, space, SWEEP_SAMPLES)
    result = asyncio.run(
        tune(world, space, START, budget_seconds=budget * sweep, clock=world.clock)
    )
    best = max(map(world.truth, everything(space)))
    truth, start = world.truth(result.settings), world.truth(START)
    covered = None
    if result.gain is not None and result.settings != START and result.confirmed:
        covered = result.gain.low <= truth / start <= result.gain.high
    return Outcome(
        of_best=truth / best,
        of_start=truth / start,
        time_share=world.now / sweep,
        covered=covered,
        changed=result.settings != START,
        false_change=result.settings != START and truth < start,
        samples=len(world.calls),
        over_budget=max(world.now - budget * sweep, 0.0) / world.part_seconds,
    )


def figures(outcomes: list[Outcome]) -> dict[str, float]:
    count = len(outcomes)
    covered = [one.covered for one in outcomes if one.covered is not None]
    shares = sorted(one.time_share for one in outcomes)
    best = sorted(one.of_best for one in outcomes)
    return {
        "within_3_percent": sum(one.of_best >= 0.97 for one in outcomes) / count,
        "of_best_mean": sum(best) / count,
        "of_best_worst_20th": best[count // 20],
        "worst_of_start": min(one.of_start for one in outcomes),
        "time_share_median": shares[count // 2],
        "time_share_95th": shares[int(0.95 * count)],
        "coverage": sum(covered) / max(len(covered), 1),
        "changed": sum(one.changed for one in outcomes) / count,
        "changed_for_the_worse": sum(one.false_change for one in outcomes) / count,
        "samples_mean": sum(one.samples for one in outcomes) / count,
        "most_parts_over_budget": max(one.over_budget for one in outcomes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--budget", type=float, default=0.15, help="share of the sweep's time")
    parser.add_argument("--space", choices=sorted(SPACES), action="append")
    parser.add_argument("--machine", choices=MACHINES, action="append")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    with ProcessPoolExecutor() as pool:
        for space in asked.space or SPACES:
            for title in asked.machine or MACHINES:
                machine = MACHINES[title]
                run = partial(one, names=SPACES[space], machine=machine, budget=asked.budget)
                outcomes = list(pool.map(run, range(asked.seeds), chunksize=5))
                found[f"{space}, {title}"] = figures(outcomes)
                if not asked.json:
                    print(f"\n{space}, {title} ({asked.seeds} seeds)", flush=True)
                    for name, value in found[f"{space}, {title}"].items():
                        print(f"  {name:26} {value:.3f}")
    if asked.json:
        print(json.dumps({"arguments": vars(asked), "figures": found}, indent=1))


if __name__ == "__main__":
    main()
