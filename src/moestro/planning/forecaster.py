"""Speed of one model on one machine: rates and residuals in, figures with ranges out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from moestro.hardware import Inventory
from moestro.model import ModelSpec
from moestro.planning.estimate import Estimate
from moestro.planning.observed import Residuals, corrected
from moestro.planning.placement import HOST, Placement, gpu_name
from moestro.planning.rates import KernelRates
from moestro.planning.roofline import ASSUMED, Where, assumed_range, assumed_rates
from moestro.planning.settings import Settings
from moestro.planning.speed import RESIDUAL, Passes, Prices
from moestro.planning.traffic import read_bytes
from moestro.planning.work import Pass, product_types
from moestro.planning.workload import Workload

MTP_DEPTHS = (1, 2, 3, 4)
MTP_ACCEPTANCES = (0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second. `decode` and `prefill` are of one stream that has the machine to itself;
    `decode_total` is of `streams` streams at once, together.

    `decode_ceiling` is the rate at which the bytes of one step could be read at best.
    """

    decode: Estimate
    decode_total: Estimate
    streams: int
    prefill: Estimate
    decode_ceiling: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "decode_tokens_per_second": self.decode.to_json(),
            "decode_total_tokens_per_second": self.decode_total.to_json(),
            "streams": self.streams,
            "prefill_tokens_per_second": self.prefill.to_json(),
            "decode_ceiling_tokens_per_second": self.decode_ceiling,
        }


def request_seconds(speed: Speed, workload: Workload) -> float:
    """One request of the workload in one stream: its prompt read, its answer written."""
    reading = workload.prompt_tokens / speed.prefill.expected
    return reading + workload.output_tokens / speed.decode.expected


@dataclass(frozen=True, slots=True)
class MtpGain:
    """`speedup` of decoding with drafts of `depth` tokens over none, if each is accepted with
    probability `acceptance` given that those before it were. Acceptance is assumed."""

    depth: int
    acceptance: float
    speedup: float

    def to_json(self) -> dict[str, Any]:
        return {
            "depth": self.depth,
            "acceptance": self.acceptance,
            "speedup": self.speedup,
            "source": "assumed",
        }


@dataclass(frozen=True)
class MachineSpeed:
    """`measured` are rates of devices by their names (`CPU`, `GPU0`, …); for devices that are not
    among them the machine's bandwidths serve, as far as they are known. `residuals` are what
    earlier runs on this machine taught."""

    model: ModelSpec
    inventory: Inventory
    measured: Mapping[str, KernelRates] = field(default_factory=dict)
    residuals: Residuals = field(default_factory=Residuals)

    def for_model(self, model: ModelSpec) -> MachineSpeed:
        """The same machine, another model; what was worked out stays for the same one."""
        return self if model is self.model else replace(self, model=model)

    def request_seconds(
        self, settings: Settings, placement: Placement, workload: Workload
    ) -> float | None:
        """One request alone: its prompt read, its answer written; None where that is unknown.
        All that a search needs to know."""
        passes = self.passes(settings, placement)
        if passes is None:
            return None
        decode = passes.decode(workload.depth, 1)
        reading = passes.prompt_seconds(workload.prompt_tokens)
        if decode.unknown or reading is None:
            return None
        writing = _estimate(1 / decode.seconds, passes, prefill=False)
        rate = corrected(writing, self.residuals, self.model.architecture).expected
        return reading + workload.output_tokens / rate

    def missing(
        self, settings: Settings, placement: Placement, workload: Workload
    ) -> tuple[str, ...]:
        """What a forecast would need and is not known: kinds of work, "link", or "bandwidth"."""
        passes = self.passes(settings, placement)
        if passes is None:
            return ("bandwidth",)
        size = min(settings.ubatch, workload.prompt_tokens)
        costs = [
            passes.decode(workload.depth, 1),
            passes.decode(workload.depth, workload.parallel),
            passes.cost(Pass(size, 1, 0, 1)),
        ]
        return tuple(sorted(frozenset[str]().union(*(cost.unknown for cost in costs))))

    def forecast(
        self, settings: Settings, placement: Placement, workload: Workload, *, alone: bool = False
    ) -> Speed | None:
        """None where too little of the machine is known. `alone` leaves out what several streams
        get together."""
        speed = self.raw(settings, placement, workload, alone=alone)
        if speed is None:
            return None
        name, seen = self.model.architecture, self.residuals
        return replace(
            speed,
            decode=corrected(speed.decode, seen, name),
            decode_total=corrected(speed.decode_total, seen, name),
        )

    def raw(
        self, settings: Settings, placement: Placement, workload: Workload, *, alone: bool = False
    ) -> Speed | None:
        """The forecast before earlier runs correct it: what observations are compared with."""
        passes = self.passes(settings, placement)
        if passes is None:
            return None
        depth, streams = workload.depth, 1 if alone else workload.parallel
        one = passes.decode(depth, 1)
        reading = passes.prompt_seconds(workload.prompt_tokens)
        if one.unknown or reading is None:
            return None
        several = passes.decode(depth, streams) if streams > 1 else one
        if several.unknown:
            return None
        ceiling = _ceiling(passes, depth)
        return Speed(
            decode=_under(ceiling, _estimate(1 / one.seconds, passes, prefill=False)),
            decode_total=_estimate(streams / several.seconds, passes, prefill=False),
            streams=streams,
            prefill=_estimate(workload.prompt_tokens / reading, passes, prefill=True),
            decode_ceiling=ceiling,
        )

    def mtp_gains(
        self, settings: Settings, placement: Placement, workload: Workload
    ) -> tuple[MtpGain, ...]:
        """(1 + Σᵢ aⁱ) · t(1) / (t_verify(n + 1) + n · t_draft) for each depth n and acceptance a.

        t_verify grows with the experts that n + 1 tokens touch; t_draft is one pass through the
        MTP block and the output head. Empty where a part of it is unknown.
        """
        passes = self.passes(settings, placement)
        if passes is None or not self.model.mtp_layers:
            return ()
        depth = workload.depth
        plain = passes.decode(depth, 1)
        draft = passes.draft_seconds(depth)
        if plain.unknown or draft is None:
            return ()
        gains = []
        for count in MTP_DEPTHS:
            verify = passes.cost(Pass(count + 1, 1, depth, count + 1)).seconds
            for acceptance in MTP_ACCEPTANCES:
                tokens = 1 + sum(acceptance**place for place in range(1, count + 1))
                gain = tokens * plain.seconds / (verify + count * draft)
                gains.append(MtpGain(count, acceptance, gain))
        return tuple(gains)

    def rates(self, threads: int) -> Mapping[str, KernelRates] | None:
        """None where a device's speed is neither measured (the host's with as many threads) nor to
        be had from its bandwidth."""
        if threads not in self._rates:
            self._rates[threads] = self._rates_with(threads)
        return self._rates[threads]

    def _rates_with(self, threads: int) -> Mapping[str, KernelRates] | None:
        usable = {
            name: rates
            for name, rates in self.measured.items()
            if name != HOST or rates.threads == threads
        }
        names = {HOST, *(gpu_name(number) for number in range(len(self.inventory.gpus)))}
        needed = frozenset(product_types(self.model))
        if names <= set(usable) and all(rates.covers(needed) for rates in usable.values()):
            return usable
        cpu = self.inventory.cpu
        fewer = replace(cpu, usable_cores=min(threads, cpu.usable_cores))
        assumed = assumed_rates(replace(self.inventory, cpu=fewer), self.model)
        if assumed is None:
            return usable if names <= set(usable) else None
        return {
            name: usable[name].completed(rates, needed) if name in usable else rates
            for name, rates in assumed.items()
        }

    @cached_property
    def _prices(self) -> Prices:
        return Prices(self.model)

    @cached_property
    def _rates(self) -> dict[int, Mapping[str, KernelRates] | None]:
        return {}

    @cached_property
    def _passes(self) -> dict[tuple[object, ...], Passes]:
        return {}

    def passes(self, settings: Settings, placement: Placement) -> Passes | None:
        """The passes of a placement, each worked out once; None where `rates` is."""
        rates = self.rates(settings.threads)
        if rates is None:
            return None
        types = (settings.cache_type_k, settings.cache_type_v)
        cache = (settings.expert_cache_bytes, settings.mtp_depth > 0, settings.cache_on_host)
        key = (placement, settings.threads, settings.ubatch, types, cache)
        if key not in self._passes:
            self._passes[key] = Passes(
                self.model, settings, rates, placement, self.inventory, self._prices
            )
        return self._passes[key]


def _ceiling(passes: Passes, depth: int) -> float | None:
    """One token needs its bytes from each device in turn, so their times add up."""
    seconds = 0.0
    listed = read_bytes(
        passes.model, passes.settings, passes.placement, depth, passes.cached_blocks
    )
    for device, size_bytes in listed.items():
        best = passes.rates[device].best_bytes_per_second
        if best is None:
            return None
        seconds += size_bytes / best
    return 1 / seconds if seconds else None


def _under(ceiling: float | None, estimate: Estimate) -> Estimate:
    if ceiling is None:
        return estimate
    low, expected = min(estimate.low, ceiling), min(estimate.expected, ceiling)
    return Estimate(expected, low, min(estimate.high, ceiling), estimate.source)


def _estimate(rate: float, passes: Passes, *, prefill: bool) -> Estimate:
    """The least certain device in use decides how wide the range is."""
    if any(passes.rates[device].measured_at == ASSUMED for device in passes.placement.devices):
        low, high = assumed_range(prefill, _where(passes.placement))
        return Estimate(rate, rate * low, rate * high, "assumed")
    low = rate / (1 + RESIDUAL) / passes.rates[HOST].load
    return Estimate(rate, low, rate * (1 + RESIDUAL), "computed")


def _where(placement: Placement) -> Where:
    """Which devices compute: the GPUs alone, the host alone, or both."""
    if placement.devices == (HOST,):
        return "cpu"
    on_host = HOST in {*placement.blocks, placement.output} or placement.expert_blocks_on_host
    return "mixed" if on_host else "gpu"
