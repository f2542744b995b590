"""Tokens per second, forecast from a file's header and the machine's measured rates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from moestro.model import ModelSpec, Role
from moestro.planning.placement import HOST, Placement, place
from moestro.planning.pricing import seconds_of
from moestro.planning.rates import KernelRates
from moestro.planning.settings import Settings
from moestro.planning.work import Operation, Pass, operations

Rates = Mapping[str, KernelRates]

SERVER_SECONDS = 60e-6
"""One turn of the server's loop and one streamed event, on top of what is computed. Assumed."""

MASK_SECONDS = 0.4e-9
"""For each query and cell, the host fills one value of the attention mask. Assumed."""

RESIDUAL = 0.25
"""Half of the range, relative, until forecasts on this machine were compared with what came. Chosen
from the errors in docs/concepts/speed.md, so how often it holds elsewhere is not known."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of one pass, by kind of work."""

    seconds: float
    by_kind: Mapping[str, float]
    unknown: frozenset[str] = field(default_factory=frozenset)


class Forecaster:
    """Forecasts for one model under one group of settings."""

    def __init__(
        self,
        model: ModelSpec,
        settings: Settings,
        rates: Rates,
        placement: Placement | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.rates = rates
        self.placement = placement or place(model, settings)
        self._weights = _weights_by_device(model, self.placement)

    def step(self, batch: Pass) -> StepCost:
        """One pass through the trunk, with what the server does around it."""
        kinds, unknown = self._priced(batch)
        host = self.rates[HOST]
        kinds["start"] += host.step + SERVER_SECONDS
        kinds["mask"] += batch.tokens * (batch.depth + batch.per_stream) * MASK_SECONDS
        if host.sampling is not None:
            kinds["sampling"] += batch.outputs * host.sampling.at(self.model.vocabulary or 0)
        return StepCost(sum(kinds.values()), kinds, frozenset(unknown))

    def _priced(self, batch: Pass) -> tuple[defaultdict[str, float], set[str]]:
        """Seconds by kind of work, and the kinds that nothing was measured for."""
        kinds: defaultdict[str, float] = defaultdict(float)
        unknown: set[str] = set()
        for operation in self._operations(batch):
            rates = self.rates[operation.device]
            share = rates.memory_share(self._weights[operation.device])
            seconds = seconds_of(operation, rates, share)
            if seconds is None:
                unknown.add(label(operation))
            else:
                kinds[label(operation)] += seconds
        return kinds, unknown

    def _operations(self, batch: Pass) -> list[Operation]:
        return operations(
            self.model,
            batch,
            self.placement.device_of,
            type_k=self.settings.cache_type_k.upper(),
            type_v=self.settings.cache_type_v.upper(),
        )

    def decode_seconds(self, depth: int, streams: int) -> StepCost:
        """One step: one token of each stream."""
        return self.step(Pass(streams, streams, depth, streams))

    def prefill_seconds(self, tokens: int, depth: int = 0) -> float:
        """A prompt of `tokens` behind `depth` cells, in ubatches."""
        total, done = 0.0, 0
        while done < tokens:
            size = min(self.settings.ubatch, tokens - done)
            final = done + size >= tokens
            total += self.step(Pass(size, 1, depth + done, 1 if final else 0)).seconds
            done += size
        return total


def _weights_by_device(model: ModelSpec, placement: Placement) -> Counter[str]:
    """Bytes on each device that decoding walks through, again and again."""
    total: Counter[str] = Counter()
    for tensor in model.tensors:
        if tensor.role is Role.MTP:
            continue
        if tensor.role is not Role.EMBEDDING:
            total[placement.device_of(tensor)] += tensor.size_bytes
        elif model.tied_embeddings:
            total[placement.output] += tensor.size_bytes
    return total


def label(operation: Operation) -> str:
    kind = getattr(operation, "kind", None)
    return kind or type(operation).__name__.lower()
