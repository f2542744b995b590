"""What may be tried for one model, machine, set of engines and workload."""

from __future__ import annotations

from moestro.engine.registry import EngineInfo
from moestro.planning import Planner
from moestro.planning.settings import Settings
from moestro.tune.axes import Finder
from moestro.tune.axis import Axis, Value
from moestro.tune.candidate import Candidate, Excluded, Space, WhyNot
from moestro.tune.forecast import Forecast


def space(
    planner: Planner,
    start: Settings,
    engines: tuple[EngineInfo, ...],
    fixed: frozenset[str],
    streams: int,
    *,
    allow_quality: bool = False,
    logical_cores: int | None = None,
) -> Space:
    """Everything worth trying for this model and machine.

    `fixed` are names of settings that stay as in `start`; `context` always does. `streams` is how
    many requests the workload has at once. `engines` hold the one of `start`. `allow_quality` lets
    the cache be stored in q8_0 although the planner chose f16: that changes answers a little, and
    no measurement of speed sees it. `logical_cores` counts hyperthreads, None what this process
    may use.
    """
    forecast = Forecast(planner, start, engines)
    may_place = not fixed & {"cpu_expert_layers", "tensor_split"}
    found = Finder(
        planner, start, engines, fixed | {"context"}, streams, allow_quality, logical_cores
    )
    return Space(
        start=start,
        opening=found.opening(),
        axes=found.axes(),
        excluded=tuple(found.excluded),
        why_not=forecast.why_not,
        gentler=found.gentler,
        fitted=forecast.fitted if may_place else lambda settings: settings,
        twins=found.twins(),
        prompt_share=forecast.prompt_share,
    )


__all__ = ["Axis", "Candidate", "Excluded", "Space", "Value", "WhyNot", "space"]
