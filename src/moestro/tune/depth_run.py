"""Measures the curve of drafting depths: seconds of a step for each depth and number of streams."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from moestro.errors import EngineError, GatewayError
from moestro.load import SCENARIOS, RequestRecord
from moestro.planning.settings import Settings
from moestro.tune.depth import DEPTHS, DepthCurve, Step, streams_to_measure
from moestro.tune.disturbance import Usual
from moestro.tune.engine_arena import EngineArena
from moestro.tune.workload import Work

ROUNDS = 2
ANSWER_SHARE = 0.5
"""Of the chat's answers: a step costs the same whatever is said in it."""

FIRST_PART = 1 << 32
LEAST_SPREAD = 0.02
"""Relative, where the few values there are happen to agree."""


async def measure_curve(
    arena: EngineArena,
    settings: Settings,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> DepthCurve | None:
    """The curve for `settings` at every depth, as far as it can be had in so many seconds; None
    where that is nothing. A depth that does not run is left out; what was disturbed runs once
    more."""
    deadline = clock() + seconds
    found: dict[tuple[int, int], list[float]] = {}
    part = FIRST_PART
    broken: set[int] = set()
    usual = Usual()
    cells = [(depth, at) for depth in DEPTHS for at in streams_to_measure(settings.parallel)]
    for _ in range(ROUNDS):
        left = list(cells)
        again = set(cells)
        while left:
            depth, streams = cell = left.pop(0)
            at = replace(settings, mtp_depth=depth)
            if depth in broken or clock() + arena.start_seconds(at) >= deadline:
                continue
            part += 1
            work = Work(SCENARIOS["chat"], streams, sessions_each=1)
            try:
                result, disturbance = await arena.run(
                    at, work, part=part, output_share=ANSWER_SHARE, ignore_eos=True
                )
            except (EngineError, GatewayError):
                broken.add(depth)
                continue
            if usual.judge(disturbance) and cell in again:
                again.remove(cell)
                left.insert(0, cell)
            else:
                found.setdefault(cell, []).extend(seconds_per_step(result.records))
    steps = {cell: _step(values) for cell, values in found.items() if values}
    return DepthCurve(steps) if steps else None


def seconds_per_step(records: Sequence[RequestRecord]) -> list[float]:
    """One value of each stream, while all of them write: before the last one has read its prompt
    and after the first one has ended the steps are others."""
    whole = [one for one in records if one.error is None and len(one.piece_times) > 1]
    if not whole:
        return []
    begin = max(one.piece_times[0] for one in whole)
    end = min(one.piece_times[-1] for one in whole)
    found = []
    for one in whole:
        written = sum(begin < at <= end for at in one.piece_times)
        own = (one.tokens - (one.accepted or 0)) / one.tokens if one.tokens else 0.0
        if written and own > 0:
            found.append((end - begin) / (written * own))
    return found


def _step(values: Sequence[float]) -> Step:
    centre = fmean(values)
    spread = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    reach = 2 * max(spread, LEAST_SPREAD * centre / math.sqrt(len(values)))
    return Step(centre, max(centre - reach, centre / 2), centre + reach)
