"""The memory ledger: what a model takes on each device, line by line, each with its source.

Pure arithmetic on a model's header, settings and a placement. With an engine's dry run at hand its
figures take the place of the formulae for weights, cache and compute buffers. Weights and cache are
the same to the byte either way (`bench/planner/memory.py` compares them); what the formulae for
compute buffers are worth stands in `compute_buffer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from moestro.hardware import Inventory
from moestro.model import ModelSpec
from moestro.model import cache as kv
from moestro.model.ggml_types import BY_NAME
from moestro.planning import compute_buffer
from moestro.planning.compute_buffer import GraphShape
from moestro.planning.engine_memory import DeviceMemory, EngineMemory
from moestro.planning.expert_cache import expert_cache
from moestro.planning.placement import HOST, Placement, gpu_name
from moestro.planning.settings import Family, Settings, Source
from moestro.planning.weights import GPU_ALIGNMENT, GPU_ROW, Weights, repacked_types
from moestro.units import MIB

Part = Literal["weights", "cache", "compute", "other"]

PROCESS_BYTES = 42 * MIB
"""The server with its libraries and threads before it has a model (Linux x86-64; measured)."""

TOKEN_BYTES = 380
"""What the engine keeps for each entry of a vocabulary and its merges (measured)."""

GPU_CONTEXT_BYTES = 500 * MIB
"""What a process takes of a GPU beside its buffers: driver context, libraries' workspaces. The
engine's memory table in public reports leaves 300 to 750 MiB of NVIDIA's cards unaccounted, the
more the newer; AMD's are taken to be like them. Of Apple's it leaves nothing (ggml-org/llama.cpp
pull request 22673, an M1 Max)."""

MARGIN_BYTES = 256 * MIB
"""Left free on each device: pools for temporary copies, fragmentation, other programs."""

_MOST_KNOWN = 16

READ_WEIGHTS = "weights, read"
"""The kind of line for weights in memory of the engine's own, which cannot be dropped; those of the
kind "weights" lie in the file's own pages."""

DRAFT_CACHE_TYPE = "f16"
"""A draft context keeps its cache in the engine's default, whatever the trunk's type is."""

_ROLL_BACK = frozenset(("qwen35", "qwen35moe", "deepseek4", "lfm2", "lfm2moe"))
"""Architectures whose recurrent states the engine can roll back (`llm_arch_supports_rs_rollback`);
it keeps a snapshot of each state for each token that may be drafted."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that takes memory. `part` is the sum of `plan --json` that it belongs to.

    `resident` tells whether it is taken from the start; a bound (prompt cache, checkpoints) and a
    margin are not.
    """

    device: str
    part: Part
    kind: str
    size_bytes: int
    source: Source
    note: str = ""
    resident: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "part": self.part,
            "bytes": self.size_bytes,
            "source": self.source,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """All lines of one device. `capacity_bytes` is what can be had there; None if unknown."""

    device: str
    capacity_bytes: int | None
    lines: tuple[Line, ...]

    def part_bytes(self, part: Part) -> int:
        return sum(line.size_bytes for line in self.lines if line.part == part)

    def kind_bytes(self, *kinds: str) -> int:
        """Of the lines of these kinds."""
        return sum(line.size_bytes for line in self.lines if line.kind in kinds)

    @property
    def expert_cache_bytes(self) -> int:
        """The cache for experts or its maps, which the engine counts with the cache."""
        return self.kind_bytes("expert cache", "maps of the expert cache")

    @property
    def weights_bytes(self) -> int:
        return self.part_bytes("weights")

    @property
    def cache_bytes(self) -> int:
        return self.part_bytes("cache")

    @property
    def compute_bytes(self) -> int:
        return self.part_bytes("compute")

    @property
    def other_bytes(self) -> int:
        return self.part_bytes("other")

    @property
    def total_bytes(self) -> int:
        return sum(line.size_bytes for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "capacity_bytes": self.capacity_bytes,
            "weights_bytes": self.weights_bytes,
            "cache_bytes": self.cache_bytes,
            "compute_bytes": self.compute_bytes,
            "other_bytes": self.other_bytes,
            "total_bytes": self.total_bytes,
            "lines": [line.to_json() for line in self.lines],
        }


@dataclass(frozen=True, slots=True)
class Ledger:
    """The devices, the host first. `cache_known` is False where the architecture's cache is not
    known and no engine could be asked: then the cache lines are missing, not zero."""

    devices: tuple[DeviceLedger, ...]
    cache_known: bool = True

    def device(self, name: str) -> DeviceLedger:
        return next(device for device in self.devices if device.device == name)

    def with_host_lines(self, lines: Sequence[Line]) -> Ledger:
        """The same with more lines on the host."""
        host, *others = self.devices
        more = (*host.lines, *(line for line in lines if line.size_bytes))
        return replace(self, devices=(replace(host, lines=more), *others))

    def resident_bytes(self, name: str) -> int:
        """What is taken on a device once the model is loaded, before its first request."""
        return sum(line.size_bytes for line in self.device(name).lines if line.resident)


def ledger(
    model: ModelSpec,
    settings: Settings,
    inventory: Inventory,
    placement: Placement,
    engine: EngineMemory | None = None,
    *,
    family: Family = "llama.cpp",
) -> Ledger:
    """What `model` takes with `settings` where `placement` puts it, in an engine of `family`.

    `engine` is the engine's dry run of the same settings, if there is one.
    """
    return _Book(model, settings, inventory, placement, engine, family).closed()


class _Book:
    def __init__(
        self,
        model: ModelSpec,
        settings: Settings,
        inventory: Inventory,
        placement: Placement,
        engine: EngineMemory | None,
        family: Family,
    ) -> None:
        self.model = model
        self.settings = settings
        self.inventory = inventory
        self.placement = placement
        self.engine = engine
        self.in_place = family == "ik_llama.cpp"
        self.lines: list[Line] = []
        self.with_mtp = settings.mtp_depth > 0 and model.mtp_layers > 0
        gpus = max(len(inventory.gpus), len(placement.devices) - 1)
        self.names = (HOST, *(gpu_name(number) for number in range(gpus)))

    def closed(self) -> Ledger:
        if self.engine is not None:
            self._by_engine(self.engine)
        else:
            self._by_formula()
        self._outputs()
        self.lines += bound_lines(self.model, self.settings)
        self._base()
        known = self.engine is not None or self.model.layers is not None
        return Ledger(tuple(self._device(name) for name in self.names), known)

    def _device(self, name: str) -> DeviceLedger:
        own = tuple(line for line in self.lines if line.device == name and line.size_bytes)
        return DeviceLedger(name, self._capacity(name), own)

    def _capacity(self, name: str) -> int | None:
        if name == HOST:
            return self.inventory.memory.available_bytes
        number = self.names.index(name) - 1
        if number >= len(self.inventory.gpus):
            return None
        gpu = self.inventory.gpus[number]
        return gpu.memory_bytes if gpu.free_bytes is None else gpu.free_bytes

    def _add(
        self,
        device: str,
        part: Part,
        kind: str,
        size_bytes: int,
        source: Source,
        note: str = "",
        *,
        resident: bool = True,
    ) -> None:
        self.lines.append(Line(device, part, kind, size_bytes, source, note, resident))

    def _by_engine(self, engine: EngineMemory) -> None:
        source: Source = "computed"  # by the engine, which takes no memory for it
        note = "the engine's dry run"
        experts = self._expert_cache()  # of which the engine's figure is the sum with the cache
        for device in engine.devices:
            self._weights(device, source, note)
            own = device.cache_bytes - experts.get(device.device, 0)
            self._add(device.device, "cache", "cache", own, source, note)
            self._add(device.device, "compute", "graph", device.compute_bytes, source, note)
        for device in engine.draft:
            name = device.device
            self._add(name, "other", "draft cache", device.cache_bytes, source, note)
            self._add(name, "other", "draft graph", device.compute_bytes, source, note)

    def _weights(self, device: DeviceMemory, source: Source, note: str) -> None:
        """Repacked weights lie in a layout made for this CPU, in memory of their own."""
        repacked = device.weights_repacked_bytes
        plain = device.weights_bytes - repacked
        kind = "weights"
        if device.device == HOST and self._read:
            kind, note = READ_WEIGHTS, f"{note}; read into memory of the engine's own"
        self._add(device.device, "weights", kind, plain, source, note)
        self._add(
            device.device, "weights", "weights, repacked", repacked, source,
            "copied into a layout for this processor; the file's own pages can be dropped",
        )  # fmt: skip

    @property
    def _read(self) -> bool:
        """Whether the engine reads weights into memory of its own instead of mapping the file."""
        settings = self.settings
        return settings.load_mode in ("none", "mlock") or (self.in_place and settings.repack)

    def _by_formula(self) -> None:
        weights = weights_of(self.model)
        # With a GPU the engine keeps the host's weights ready for copies to it.
        alone = len(self.names) == 1
        copies = alone and self.settings.repack and not self.in_place
        types = repacked_types(self.inventory.cpu) if copies else frozenset()
        sizes = weights.by_device(self.placement, with_mtp=self.with_mtp, repacks=types)
        repacked = weights.repacked_bytes(self.placement, with_mtp=self.with_mtp, types=types)
        for name, size_bytes in sizes.items():
            own = repacked if name == HOST else 0
            self._weights(DeviceMemory(name, size_bytes, 0, 0, own), "file", "sum of the tensors")
        self._cache()
        shape = shape_of(self.model)
        for name, size_bytes in compute_buffer.compute_bytes(
            shape, self.settings, self.placement, len(self.names) - 1
        ).items():
            self._add(name, "compute", "graph", size_bytes, "computed", compute_buffer.ERROR)
        if self.with_mtp:
            for name, size_bytes in compute_buffer.draft_bytes(
                shape, self.settings, self.placement
            ).items():
                self._add(
                    name, "other", "draft graph", size_bytes, "computed", compute_buffer.ERROR
                )

    def _cache(self) -> None:
        settings, model = self.settings, self.model
        if model.layers is None:
            return
        snapshots = settings.mtp_depth if model.architecture in _ROLL_BACK else 0
        for layer in model.trunk_layers or ():
            name = self._cache_device(layer.index)
            tables, states = kv.cache_parts(
                (layer,),
                settings.context,
                settings.parallel,
                settings.cache_type_k,
                settings.cache_type_v,
                ubatch=settings.ubatch,
                unified=settings.unified,
                snapshots=snapshots,
            )
            if name != HOST:
                tables += _padding_bytes(layer, settings.cache_type_k, settings.cache_type_v)
            note = f"{settings.cache_type_k}/{settings.cache_type_v}"
            self._add(name, "cache", "key-value cache", tables, "computed", note)
            copies = f", each with {snapshots} snapshots for drafts" if snapshots else ""
            note = f"one for each of {settings.parallel} streams{copies}"
            self._add(name, "cache", "recurrent states", states, "computed", note)
        self._expert_cache()
        if not self.with_mtp:
            return
        for layer in model.layers:
            if layer.mtp:
                size_bytes = kv.cache_bytes(
                    (layer,),
                    settings.context,
                    settings.parallel,
                    DRAFT_CACHE_TYPE,
                    DRAFT_CACHE_TYPE,
                    ubatch=settings.ubatch,
                    unified=settings.unified,
                )
                name = self._cache_device(layer.index)
                self._add(name, "other", "draft cache", size_bytes, "computed", DRAFT_CACHE_TYPE)

    def _expert_cache(self) -> dict[str, int]:
        """Adds the cache for experts, if there is one, and returns its bytes by device."""
        cache = expert_cache(
            self.model,
            self.settings,
            self.placement,
            [self._capacity(name) or 0 for name in self.names[1:]],
            with_mtp=self.with_mtp,
        )
        sizes = cache.sizes if cache is not None else {}
        for name, size_bytes in sizes.items():
            kind = "expert cache" if name != HOST else "maps of the expert cache"
            self._add(name, "other", kind, size_bytes, "computed")
        return sizes

    def _cache_device(self, block: int) -> str:
        return HOST if self.settings.cache_on_host else self.placement.blocks[block]

    def _outputs(self) -> None:
        """Rows of logits that a step hands over, and hidden states for the draft."""
        settings, vocabulary = self.settings, self.model.vocabulary or 0
        hidden = self.model.embedding_length or 0
        rows = settings.outputs
        size_bytes = 4 * rows * vocabulary
        if self.with_mtp:
            size_bytes += 4 * hidden * self._batch()
        self._add(HOST, "compute", "outputs", size_bytes, "computed", f"{rows} rows of logits")
        if self.with_mtp:
            draft = 4 * settings.parallel * (4 * vocabulary + 1 + hidden)
            self._add(HOST, "other", "draft outputs", draft, "computed")

    def _batch(self) -> int:
        settings = self.settings
        batch = settings.tokens_at_once(accelerated=len(self.placement.devices) > 1)
        return min(batch, settings.context * settings.parallel)

    def _base(self) -> None:
        self._add(HOST, "other", "process", PROCESS_BYTES, "assumed", "the server without a model")
        vocabulary = TOKEN_BYTES * (self.model.vocabulary or 0)
        self._add(HOST, "other", "vocabulary", vocabulary, "assumed")
        for name in self.names:
            self._add(name, "other", "margin", MARGIN_BYTES, "assumed", "left free", resident=False)
        projector = self.model.projector
        if projector is not None and projector.size_bytes:
            where = self.names[1] if len(self.placement.devices) > 1 else HOST
            self._add(where, "other", "projector", projector.size_bytes, "file")
        for number, name in enumerate(self.names[1:]):
            gpus = self.inventory.gpus
            if number < len(gpus) and gpus[number].vendor == "apple":
                continue
            self._add(name, "other", "device context", GPU_CONTEXT_BYTES, "assumed",
                      "the driver's context and its libraries' workspaces")  # fmt: skip


def bound_lines(model: ModelSpec, settings: Settings) -> list[Line]:
    """What the engine may come to hold on the host, up to the bounds it is given."""
    prompts = settings.prompt_cache_bytes
    lines = [Line(HOST, "other", "prompt cache", prompts, "computed", "a bound", resident=False)]
    layers = model.trunk_layers
    if settings.context_checkpoints and layers is not None:
        one = kv.state_bytes(layers) + kv.window_bytes(
            layers, settings.cache_type_k, settings.cache_type_v, ubatch=settings.ubatch
        )
        count = settings.context_checkpoints * settings.parallel
        note = f"{count} at most"
        lines.append(
            Line(
                HOST, "other", "context checkpoints", count * one, "computed", note, resident=False
            )
        )
    return lines


def _padding_bytes(layer: kv.Layer, type_k: str, type_v: str) -> int:
    """What quantized tables whose rows are no multiple of 512 values take more on a GPU."""
    total = 0
    for store in layer.stores:
        for type_name, width in ((type_k, store.key_width), (type_v, store.value_width)):
            kind = BY_NAME[type_name.upper()]
            if kind.block_size > 1 and width % GPU_ROW:
                size_bytes = kind.row_bytes(GPU_ROW - width % GPU_ROW)
                total += size_bytes + -size_bytes % GPU_ALIGNMENT
    return total


_weights: dict[int, tuple[Weights, GraphShape]] = {}


def weights_of(model: ModelSpec) -> Weights:
    return _known(model)[0]


def shape_of(model: ModelSpec) -> GraphShape:
    return _known(model)[1]


def _known(model: ModelSpec) -> tuple[Weights, GraphShape]:
    """The sums of a model that is asked for again and again in one search."""
    known = _weights.get(id(model))
    if known is None or known[0].model is not model:
        if len(_weights) >= _MOST_KNOWN:
            _weights.clear()
        known = _weights[id(model)] = Weights(model), GraphShape(model)
    return known


__all__: Sequence[str] = (
    "DeviceLedger",
    "DeviceMemory",
    "EngineMemory",
    "Ledger",
    "Line",
    "ledger",
)
