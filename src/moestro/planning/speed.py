"""Seconds that passes through a model take, from its header and the devices' rates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from moestro.hardware import Inventory
from moestro.model import ModelSpec, Role
from moestro.planning.expert_cache import expert_cache
from moestro.planning.placement import HOST, Placement, gpu_capacities, place
from moestro.planning.pricing import seconds_of
from moestro.planning.rates import KernelRates
from moestro.planning.recipe import Recipes
from moestro.planning.settings import Settings
from moestro.planning.transfer import (
    CROSSING_SECONDS,
    computing_device,
    crossing_seconds,
    offload_seconds,
)
from moestro.planning.work import Operation, Pass

SERVER_SECONDS = 60e-6
"""One turn of the server's loop and one streamed event, on top of what is computed. Assumed."""

MASK_SECONDS = 0.4e-9
"""For each query and cell, the host fills one value of the attention mask. Assumed."""

RESIDUAL = 0.25
"""Half of the range, relative, until forecasts on this machine were compared with what came. Chosen
from the errors in docs/concepts/speed.md, so how often it holds elsewhere is not known."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """Seconds of one pass, by kind of work; `unknown` names what nothing was measured for."""

    seconds: float
    by_kind: Mapping[str, float]
    unknown: frozenset[str] = field(default_factory=frozenset)


class Prices:
    """The operations of one model, added up, and their seconds; each is worked out once, however
    many placements ask."""

    def __init__(self, model: ModelSpec) -> None:
        self.recipes = Recipes(model)
        self._known: dict[tuple[Operation, str, int, float], float | None] = {}

    def of(
        self, operation: Operation, device: str, rates: KernelRates, memory_share: float
    ) -> float | None:
        key = (operation, device, rates.threads, round(memory_share, 3))
        if key not in self._known:
            self._known[key] = seconds_of(operation, rates, memory_share)
        return self._known[key]


class Passes:
    """Passes of one model under one group of settings, over one or several devices: with what moves
    between them, and with the products of large batches where the engine computes them.

    `rates` are of every device in use; without an `inventory` that is the host. `prices` are shared
    by the passes of one model on one machine.
    """

    def __init__(
        self,
        model: ModelSpec,
        settings: Settings,
        rates: Mapping[str, KernelRates],
        placement: Placement | None = None,
        inventory: Inventory | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.rates = rates
        self.placement = placement or place(model, settings)
        self._inventory = inventory
        self._prices = prices or Prices(model)
        self._weights = _weights_by_device(model, self.placement)
        self._types = (settings.cache_type_k.upper(), settings.cache_type_v.upper())
        self._costs: dict[Pass, PassCost] = {}
        gpu_bytes = gpu_capacities(inventory) if inventory is not None else ()
        self._cache = expert_cache(
            model, settings, self.placement, gpu_bytes, with_mtp=settings.mtp_depth > 0
        )

    @property
    def cached_blocks(self) -> frozenset[int]:
        """Blocks whose experts go through a cache on the GPU."""
        return frozenset() if self._cache is None else self._cache.blocks

    def cost(self, batch: Pass) -> PassCost:
        """One pass through the trunk, with what the server does around it."""
        if batch not in self._costs:
            self._costs[batch] = self._cost(batch)
        return self._costs[batch]

    def decode(self, depth: int, streams: int) -> PassCost:
        """One step: one token of each stream."""
        return self.cost(Pass(streams, streams, depth, streams))

    def prompt_seconds(self, tokens: int, depth: int = 0) -> float | None:
        """A prompt of `tokens` behind `depth` cells. All whole ubatches are taken at their middle
        depth, in which cost is linear. None where something of it is unknown."""
        size = min(self.settings.ubatch, tokens)
        whole, rest = divmod(tokens, size)
        if rest == 0:
            whole, rest = whole - 1, size
        last = self.cost(Pass(rest, 1, depth + whole * size, 1))
        if last.unknown:
            return None
        if not whole:
            return last.seconds
        middle = self.cost(Pass(size, 1, depth + (whole - 1) * size // 2, 0))
        return whole * middle.seconds + last.seconds

    def draft_seconds(self, depth: int) -> float | None:
        """One pass of one token through the MTP block and the output head; None where a part of it
        was never measured."""
        seconds, unknown = self._priced(Pass(1, 1, depth, 1), mtp=True)
        if unknown:
            return None
        count = self.model.layer_count
        on_host = [block for block in self.placement.expert_blocks_on_host if block >= count]
        crossings = 2 * len(on_host) * CROSSING_SECONDS
        return sum(seconds.values()) + crossings + self.rates[HOST].step

    def _cost(self, batch: Pass) -> PassCost:
        kinds, unknown = self._priced(batch)
        host = self.rates[HOST]
        kinds["start"] += host.step + SERVER_SECONDS
        kinds["mask"] += batch.tokens * (batch.depth + batch.per_stream) * MASK_SECONDS
        if host.sampling is not None:
            kinds["sampling"] += batch.outputs * host.sampling.at(self.model.vocabulary or 0)
        if self._inventory is not None:
            where = (self.model, self.placement)
            copies = offload_seconds(*where, self._inventory, batch.tokens, self._cache)
            if copies is None:
                unknown.add("link")
            kinds["copies"] += copies or 0.0
            kinds["crossings"] += crossing_seconds(*where, batch.tokens, self._cache)
        return PassCost(sum(kinds.values()), kinds, frozenset(unknown))

    def _priced(
        self, batch: Pass, *, mtp: bool = False
    ) -> tuple[defaultdict[str, float], set[str]]:
        """Seconds by kind of work, and the kinds that nothing was measured for."""
        kinds: defaultdict[str, float] = defaultdict(float)
        unknown: set[str] = set()
        offloads = self._inventory is not None and bool(self._inventory.gpus)
        cache = None if mtp else self._cache  # the draft context has no cache for experts
        where = computing_device(self.placement, batch.tokens, offloads=offloads, cache=cache)
        shares = {
            device: rates.memory_share(self._weights[device])
            for device, rates in self.rates.items()
        }
        listed = self._prices.recipes.of(batch, *self._types, mtp=mtp)
        for operation, device, count in listed.on_devices(where):
            seconds = self._prices.of(operation, device, self.rates[device], shares[device])
            if seconds is None:
                unknown.add(label(operation))
            else:
                kinds[label(operation)] += seconds * count
        return kinds, unknown


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
