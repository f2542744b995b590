"""The operations of a pass, added up: what a search over placements prices again and again.

A model's blocks are alike, so a pass of 1,500 operations holds about forty different ones. Which
device computes each depends on the placement alone. So the list is made once for each pass, from
one block of each kind, with tensors in the place of devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from moestro.model import ModelSpec, Role, TensorInfo
from moestro.planning.placement import is_routed_expert
from moestro.planning.work import Operation, Pass, operations

Where = Callable[[TensorInfo], str]
_Likeness = tuple[bool, bool, Role | None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """`parts` are different operations, each with how often it runs where a tensor like `examples`
    number i lies."""

    examples: tuple[TensorInfo, ...]
    parts: tuple[tuple[Operation, tuple[tuple[int, int], ...]], ...]

    def on_devices(self, where: Where) -> list[tuple[Operation, str, int]]:
        """(operation, device, how often) with the devices that `where` names."""
        devices = [where(tensor) for tensor in self.examples]
        found = []
        for operation, places in self.parts:
            counts: dict[str, int] = {}
            for number, count in places:
                device = devices[number]
                counts[device] = counts.get(device, 0) + count
            found += [(operation, device, count) for device, count in counts.items()]
        return found


class Recipes:
    """The recipes of one model, each made when it is first asked for."""

    def __init__(self, model: ModelSpec) -> None:
        self._model = model
        self._known: dict[tuple[Pass, str, str, bool], Recipe] = {}

    def of(self, batch: Pass, type_k: str, type_v: str, *, mtp: bool = False) -> Recipe:
        """The operations of `batch` in the trunk or (`mtp`) in the MTP blocks."""
        key = (batch, type_k, type_v, mtp)
        if key not in self._known:
            self._known[key] = self._make(*key)
        return self._known[key]

    def _make(self, batch: Pass, type_k: str, type_v: str, mtp: bool) -> Recipe:
        examples: list[TensorInfo] = []
        places: dict[tuple[int | None, _Likeness], range] = {}
        starts: dict[str, range] = {}

        def symbol(tensor: TensorInfo) -> str:
            key = (tensor.layer, _likeness(tensor))
            if key not in places:
                start = len(examples)
                examples.extend(self._alike(tensor))
                places[key] = starts[str(start)] = range(start, len(examples))
            return str(places[key].start)

        listed = operations(self._reduced, batch, symbol, type_k=type_k, type_v=type_v, mtp=mtp)
        counts: dict[Operation, Counter[int]] = {}
        for operation in listed:
            counter = counts.setdefault(replace(operation, device=""), Counter())
            counter.update(starts[operation.device])
        parts = tuple((plain, tuple(counter.items())) for plain, counter in counts.items())
        return Recipe(tuple(examples), parts)

    def _alike(self, tensor: TensorInfo) -> list[TensorInfo]:
        """A tensor that is placed like this one, of each block of its kind."""
        if tensor.layer is None:
            return [tensor]
        likeness = _likeness(tensor)
        return [self._first[block, likeness] for block in self._kinds[tensor.layer]]

    @cached_property
    def _blocks(self) -> dict[int, list[TensorInfo]]:
        blocks: dict[int, list[TensorInfo]] = {}
        for tensor in self._model.tensors:
            if tensor.layer is not None:
                blocks.setdefault(tensor.layer, []).append(tensor)
        return blocks

    @cached_property
    def _kinds(self) -> dict[int, list[int]]:
        """The blocks of each kind by its first one. The last block of the trunk and the last MTP
        block compute less than those in front of them, and stand alone."""
        layers = {layer.index: layer for layer in self._model.layers or ()}
        last = {self._model.layer_count - 1, max(self._blocks, default=0)}
        kinds: dict[object, list[int]] = {}
        for index in sorted(self._blocks):
            layer = layers.get(index)
            cache = layer and (layer.kind, layer.stores, layer.state_bytes, layer.mtp)
            start = len(f"blk.{index}.")
            names = tuple((t.name[start:], t.type, t.shape) for t in self._blocks[index])
            alone = index if index in last else None
            kinds.setdefault((alone, cache, names), []).append(index)
        return {blocks[0]: blocks for blocks in kinds.values()}

    @cached_property
    def _reduced(self) -> ModelSpec:
        """The model with the first block of each kind only."""
        kept = (t for t in self._model.tensors if t.layer is None or t.layer in self._kinds)
        return replace(self._model, tensors=tuple(kept))

    @cached_property
    def _first(self) -> dict[tuple[int, _Likeness], TensorInfo]:
        found: dict[tuple[int, _Likeness], TensorInfo] = {}
        for block, tensors in self._blocks.items():
            for tensor in tensors:
                found.setdefault((block, _likeness(tensor)), tensor)
        return found


def _likeness(tensor: TensorInfo) -> _Likeness:
    """What a placement looks at besides the block."""
    outside = tensor.role if tensor.layer is None else None
    return is_routed_expert(tensor), len(tensor.shape) > 1, outside
