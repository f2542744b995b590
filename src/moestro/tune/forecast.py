"""What the plan says of a candidate before it is run: whether it fits, whether it has a chance."""

from __future__ import annotations

from dataclasses import replace

from moestro.engine.registry import EngineInfo, needs
from moestro.planning import Planner, Trial
from moestro.planning.forecaster import Speed
from moestro.planning.placement import expert_blocks
from moestro.planning.search import split
from moestro.planning.settings import PlannedEngine, Settings
from moestro.units import format_bytes

MOST_LAYERS_MOVED = 8
LEAST_DOUBT = 1.25
"""No forecast is believed to be better than this factor."""


class Forecast:
    """The planner's view of settings, by formula: no engine is asked, so it costs next to nothing.

    What dry runs taught the planner about the engine's memory stays in it. `engines` are those
    that settings may name.
    """

    def __init__(
        self, planner: Planner, start: Settings, engines: tuple[EngineInfo, ...] = ()
    ) -> None:
        self._first = planner
        self._engines = {engine.id: engine for engine in engines}
        self._planners: dict[str, Planner] = {}
        self._known: dict[Settings, Trial] = {}
        self._start = self.trial(start)

    def trial(self, settings: Settings) -> Trial:
        """What settings take and bring; worked out once for all that the formulae cannot tell
        apart."""
        key = replace(settings, threads_batch=None, mtp_p_min=0.0)
        if key not in self._known:
            self._known[key] = self._planner(settings.engine).exactly(key)
        return self._known[key]

    def _planner(self, engine: str) -> Planner:
        """The same question, without an engine to ask, for an engine of that name."""
        if engine not in self._planners:
            planner = self._first.with_wishes(self._first.wishes)
            info = self._engines.get(engine)
            planner.engine = info.planned if info is not None else PlannedEngine.called(engine)
            if planner.engine.family != self._first.engine.family:
                planner.corrections = {}  # those were of another program
            self._planners[engine] = planner
        return self._planners[engine]

    @property
    def prompt_share(self) -> float | None:
        """The part of a request's time in which its prompt is read."""
        speed, workload = self._start.speed_alone, self._start.workload
        if speed is None:
            return None
        reading = workload.prompt_tokens / speed.prefill.expected
        return reading / (reading + workload.output_tokens / speed.decode.expected)

    def fitted(self, candidate: Settings) -> Settings:
        """With the experts of a few more layers in host memory, where a GPU is short without
        that; as they are where that is not it."""
        first, now = self._first, candidate.cpu_expert_layers
        if not first.gpu_bytes or self.trial(candidate).fits:
            return candidate
        every = len(expert_blocks(first.model))
        for count in range(now + 1, min(now + MOST_LAYERS_MOVED, every) + 1):
            moved = replace(candidate, cpu_expert_layers=count)
            moved = replace(moved, tensor_split=split(first.model, moved, first.gpu_bytes))
            if self.trial(moved).fits:
                return moved
        return candidate

    def why_not(self, candidate: Settings, incumbent: Settings) -> str | None:
        """Why a candidate is not worth a try beside the incumbent; None if it is."""
        if candidate.context < incumbent.context:
            return "a stream would reach fewer tokens"
        if candidate.cache_type_v not in ("f32", "f16", "bf16") and (
            candidate.flash_attention == "off"
        ):
            return "a quantized cache needs flash attention"
        if candidate.batch is not None and candidate.batch < candidate.ubatch:
            return "the batch would be smaller than the ubatch"
        engine = self._engines.get(candidate.engine)
        missing = needs(candidate) - engine.features if engine is not None else frozenset[str]()
        if missing:
            return f"its engine cannot do it ({', '.join(sorted(missing))})"
        if (
            engine is not None
            and candidate.flash_attention != "off"
            and candidate.parallel > 1
            and not engine.planned.attends_in_slots
        ):
            return "its engine fails with flash attention in any slot but the first"
        return self._too_large(candidate) or self._too_slow(candidate, incumbent)

    def _too_large(self, candidate: Settings) -> str | None:
        """Where even the start does not fit, only what takes more than it is left out."""
        trial, start = self.trial(candidate), self._start.over_bytes
        over = {
            device: size for device, size in trial.over_bytes.items() if size > start.get(device, 0)
        }
        if not over:
            return None
        device = max(over, key=lambda name: over[name])
        return f"over the plan: {format_bytes(over[device])} too much for {device}"

    def _too_slow(self, candidate: Settings, incumbent: Settings) -> str | None:
        mine, best = self.trial(candidate), self.trial(incumbent)
        if mine is best or mine.request_seconds is None or best.request_seconds is None:
            return None
        slower = mine.request_seconds / best.request_seconds
        doubt = max(_doubt(mine.speed_alone), _doubt(best.speed_alone), LEAST_DOUBT)
        return f"forecast: {slower:.1f}× slower" if slower > doubt else None


def _doubt(speed: Speed | None) -> float:
    """By what factor a forecast may be off; nothing is ever left out on one that is not there."""
    if speed is None:
        return float("inf")
    return max(
        max(estimate.high / estimate.expected, estimate.expected / estimate.low)
        if estimate.low > 0
        else float("inf")
        for estimate in (speed.decode, speed.prefill)
    )
