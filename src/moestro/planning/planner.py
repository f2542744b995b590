"""From a model, a machine and what the user fixed to settings.

Order of decisions: streams and context → cache type, ubatch and placement (jointly, `search`) →
bounds for prompt cache and checkpoints. Memory is the ledger's. Where an engine can be asked, its
dry run replaces the ledger's formula for the compute buffers, and the search runs again with what
was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from moestro.hardware import Inventory
from moestro.model import ModelSpec
from moestro.model import cache as kv
from moestro.planning import bounds
from moestro.planning.engine_memory import EngineMemory
from moestro.planning.forecaster import MachineSpeed, Speed
from moestro.planning.memory import Ledger, bound_lines, ledger
from moestro.planning.placement import HOST, Placement, gpu_capacities, place
from moestro.planning.search import UBATCHES, Space, allowed, cached, search
from moestro.planning.settings import EMBEDDED, CacheType, PlannedEngine, Settings
from moestro.planning.wishes import Wishes
from moestro.planning.workload import Workload

DEFAULT_CONTEXT = 8192
"""Tokens per stream to begin with: a conversation with tools."""

GENEROUS_CONTEXTS = (32768, 16384)
"""Given without being asked for where they cost next to nothing."""

CONTEXT_FLOOR = 1024
DEFAULT_PARALLEL = 4
DEFAULT_PROMPT_TOKENS = 1024
DEFAULT_OUTPUT_TOKENS = 256

CACHE_SHARE = 0.25
"""Part of the memory beside the weights that the cache may take without being asked for."""

GENEROUS_SHARE = 0.10
"""The same for a context beyond the default."""

SLOWER_AT_MOST = 1.03
"""What nobody asked for may make a request 3 % slower."""

CACHE_TYPES: tuple[CacheType, ...] = ("f16", "q8_0")
"""In this order. q4_0 is never chosen, only obeyed: long contexts suffer from it."""

ROUNDS = 3
"""Dry runs at most; each sees the settings that the last one's figures led to."""

MOST_TOKENS_TO_ASK = 1 << 24
"""Of cache: of each the engine writes 12 bytes down even in a dry run, in about 40 ns. So where the
formula says that it cannot fit anyway, it is not asked about more."""

AskEngine = Callable[[Settings], EngineMemory | None]


@dataclass(frozen=True)
class Trial:
    """Settings with their memory; speed is worked out when it is asked for.

    `shared_bytes` is the memory that host and GPUs share, None where each has its own.
    `corrections` are bytes that the engine's dry run of other settings had above the formula, by
    device; they are in `over_bytes`, not in the ledger.
    """

    settings: Settings
    placement: Placement
    ledger: Ledger
    forecaster: MachineSpeed
    workload: Workload
    corrections: Mapping[str, int] = field(default_factory=dict)
    shared_bytes: int | None = None

    @cached_property
    def takes_bytes(self) -> dict[str, int]:
        """What each device holds, as far as is known: the engine's figures or the corrected
        formula's."""
        return {
            device.device: device.total_bytes + self.corrections.get(device.device, 0)
            for device in self.ledger.devices
        }

    @property
    def total_bytes(self) -> int:
        return sum(self.takes_bytes.values())

    @cached_property
    def over_bytes(self) -> dict[str, int]:
        """By how much each device of known size is short; 0 where it is not. Where GPUs share the
        host's memory, the host is short too if all of them together take more than there is."""
        takes = self.takes_bytes
        over = {
            device.device: max(takes[device.device] - device.capacity_bytes, 0)
            for device in self.ledger.devices
            if device.capacity_bytes is not None
        }
        if self.shared_bytes is not None:
            over[HOST] = max(over.get(HOST, 0), self.total_bytes - self.shared_bytes)
        return over

    @cached_property
    def fits(self) -> bool:
        """As far as is known; see `verdict`."""
        return not any(self.over_bytes.values())

    @property
    def verdict(self) -> bool | None:
        """None where nothing speaks against it, but the memory of a device in use or the size of
        the cache is not known."""
        if not self.fits:
            return False
        known = self.ledger.cache_known and all(
            device.capacity_bytes is not None or not (device.weights_bytes + device.cache_bytes)
            for device in self.ledger.devices
        )
        return True if known else None

    @property
    def spare_bytes(self) -> int:
        """What is left on the GPUs, as far as is known."""
        return sum(
            max(device.capacity_bytes - self.takes_bytes[device.device], 0)
            for device in self.ledger.devices
            if device.device != HOST and device.capacity_bytes is not None
        )

    @cached_property
    def speed(self) -> Speed | None:
        return self.forecaster.forecast(self.settings, self.placement, self.workload)

    @cached_property
    def speed_alone(self) -> Speed | None:
        """Without what several streams get together: quicker to work out."""
        return self.forecaster.forecast(self.settings, self.placement, self.workload, alone=True)

    @cached_property
    def request_seconds(self) -> float | None:
        return self.forecaster.request_seconds(self.settings, self.placement, self.workload)


@dataclass(frozen=True, slots=True)
class Streams:
    """A context and a number of streams, and why these."""

    context: int
    parallel: int
    context_because: str
    parallel_because: str


class Planner:
    """Chooses settings for one model on one machine.

    `forecaster` and `ask_engine` are how this pure part learns of rates and of the engine; the
    latter answers None where there is no engine to ask. `engine` is what the wishes' engine turned
    out to be, or else what its name tells.
    """

    def __init__(
        self,
        model: ModelSpec,
        inventory: Inventory,
        wishes: Wishes,
        forecaster: MachineSpeed,
        ask_engine: AskEngine | None = None,
        engine: PlannedEngine | None = None,
    ) -> None:
        self.model = model
        self.machine = inventory
        self.inventory = _within(inventory, wishes.budget_bytes)
        self.wishes = wishes
        self.forecaster = forecaster
        self.ask_engine = ask_engine
        self.engine = engine or PlannedEngine.called(wishes.engine or EMBEDDED)
        self.gpu_bytes = gpu_capacities(self.inventory)
        self.corrections: dict[str, int] = {}
        self._last: Settings | None = None

    def with_wishes(self, wishes: Wishes) -> Planner:
        """The same question with other wishes; what the engine's dry run taught stays."""
        return self._like(self.model, wishes)

    def with_model(self, model: ModelSpec) -> Planner:
        """The same question for another size of the model. Its engine cannot be asked."""
        return self._like(model, self.wishes)

    def _like(self, model: ModelSpec, wishes: Wishes) -> Planner:
        forecaster = self.forecaster.for_model(model)
        other = Planner(model, self.machine, wishes, forecaster, engine=self.engine)
        other.corrections, other._last = dict(self.corrections), self._last
        return other

    def decide(self) -> tuple[Trial, Streams]:
        """The best trial and its streams. With an engine to ask, the trial's ledger holds the
        engine's own figures."""
        streams = self.streams()
        found = self.best(streams.context, streams.parallel)
        confirmed: list[tuple[Trial, Streams]] = []
        for _ in range(ROUNDS):
            says = self._asked(found)
            if says is None:
                break
            trial = self.trial(found.settings, says)
            confirmed.append((trial, streams))
            self._learn(found.ledger, trial.ledger)
            if not trial.fits:  # what nobody asked for gives way first
                streams = self.streams()
            again = self.best(streams.context, streams.parallel)
            if _without_bounds(again.settings) == _without_bounds(found.settings):
                break
            found = again
        fitting = [pair for pair in confirmed if pair[0].fits]
        if fitting:
            return min(fitting, key=lambda pair: pair[0].request_seconds or 0.0)
        return confirmed[-1] if confirmed else (found, streams)

    def _learn(self, formula: Ledger, engine: Ledger) -> None:
        """Keeps by how much the engine was above the formula: the most that it ever was."""
        for device, size_bytes in _differences(formula, engine).items():
            known = self.corrections.get(device, size_bytes)
            self.corrections[device] = max(known, size_bytes)

    def best(self, context: int, parallel: int, *, ubatches: tuple[int, ...] = UBATCHES) -> Trial:
        """The fastest placement that fits, for this context and number of streams."""
        wishes = self.wishes
        base = Settings(
            context=context,
            parallel=parallel,
            threads=wishes.threads or self.inventory.cpu.usable_cores,
            flash_attention=wishes.flash_attention
            or ("auto" if parallel == 1 or self.engine.attends_in_slots else "off"),
            unified=wishes.unified,
            mtp_depth=wishes.mtp or 0,
            engine=self.engine.id,
            threads_batch=wishes.threads_batch,
            batch=wishes.batch,
            repack=wishes.repack is not False,
            load_mode=wishes.load_mode or "auto",
            mtp_p_min=wishes.mtp_p_min or 0.0,
            ngram=wishes.ngram or "off",
            cache_on_host=bool(wishes.cache_on_host and self.gpu_bytes),
        )
        space = self._space(ubatches)
        found = search(self.model, space, base, self.trial)
        self._last = found.settings
        return found

    def with_expert_cache(self, trial: Trial) -> Trial | None:
        """The same with a cache for experts on the GPU, as large as fits, in place of layers of
        them; None where that does not go together."""
        space = self._space((trial.settings.ubatch,))
        return cached(self.model, space, trial, self.trial)

    def _space(self, ubatches: tuple[int, ...]) -> Space:
        wishes, gpus = self.wishes, self.inventory.gpus
        known = all(gpu.memory_bytes or gpu.free_bytes is not None for gpu in gpus)
        return Space(
            ubatches=allowed(wishes.ubatch, ubatches if self.gpu_bytes else UBATCHES[:1]),
            cache_types=CACHE_TYPES if wishes.cache_type is None else (wishes.cache_type,),
            gpu_layers=wishes.gpu_layers if known else wishes.gpu_layers or 0,
            cpu_expert_layers=wishes.cpu_expert_layers,
            gpu_bytes=self.gpu_bytes,
            expert_cache_bytes=wishes.expert_cache_bytes,
            near=self._last,
        )

    def trial(self, settings: Settings, engine: EngineMemory | None = None) -> Trial:
        """What `settings` take and bring on this machine; `engine` is its dry run of them."""
        settings = replace(settings, prompt_cache_bytes=0, context_checkpoints=0)
        placement = place(self.model, settings, self.gpu_bytes)
        if not placement.expert_blocks_on_host:  # the engine refuses a cache for nothing
            settings = replace(settings, expert_cache_bytes=0)
        bare = self._ledger(settings, placement, engine)
        learned = {} if engine is not None else self.corrections
        return self._tried(self._bounded(settings, bare, learned), placement, bare, learned)

    def exactly(self, settings: Settings) -> Trial:
        """What `settings` take and bring as they stand, prompt cache and checkpoints included; the
        engine is asked where there is one."""
        placement = place(self.model, settings, self.gpu_bytes)

        def with_engine(says: EngineMemory | None) -> Trial:
            bare = self._ledger(_without_bounds(settings), placement, says)
            learned = {} if says is not None else self.corrections
            return self._tried(settings, placement, bare, learned)

        by_formula = with_engine(None)
        says = self._asked(by_formula)
        return by_formula if says is None else with_engine(says)

    def _asked(self, trial: Trial) -> EngineMemory | None:
        settings = trial.settings
        if settings.context * settings.parallel > MOST_TOKENS_TO_ASK and not trial.fits:
            return None
        return self.ask_engine(settings) if self.ask_engine is not None else None

    def _ledger(
        self, settings: Settings, placement: Placement, says: EngineMemory | None
    ) -> Ledger:
        family = self.engine.family
        return ledger(self.model, settings, self.inventory, placement, says, family=family)

    def _tried(
        self, settings: Settings, placement: Placement, bare: Ledger, learned: Mapping[str, int]
    ) -> Trial:
        memory = self.inventory.memory
        return Trial(
            settings,
            placement,
            bare.with_host_lines(bound_lines(self.model, settings)),
            self.forecaster,
            self.workload(settings),
            learned,
            memory.available_bytes if memory.unified else None,
        )

    def workload(self, settings: Settings) -> Workload:
        output = self.wishes.output_tokens
        if output is None:
            output = min(DEFAULT_OUTPUT_TOKENS, max(settings.context // 4, 1))
        prompt = self.wishes.prompt_tokens
        if prompt is None:
            prompt = min(DEFAULT_PROMPT_TOKENS, max(settings.context - output, 1))
        return Workload(settings.context, settings.parallel, prompt, output)

    def streams(self) -> Streams:
        """Streams and context: what the user fixed, else as much as costs next to nothing."""
        context, context_because = self._context(self.wishes.parallel or 1)
        asked = self.wishes.parallel
        if asked is not None:
            return Streams(context, asked, context_because, "you asked for it")
        parallel = DEFAULT_PARALLEL
        base = self._quick(context, 1)
        if not base.fits:
            return Streams(context, 1, context_because, "nothing fits; one stream")
        while parallel > 1 and not self._cheap(self._quick(context, parallel), base, CACHE_SHARE):
            parallel //= 2
        if parallel == DEFAULT_PARALLEL:
            parallel_because = "a few at once, at next to no cost"
        else:
            parallel_because = "more would cost too much memory or speed"
        return Streams(context, parallel, context_because, parallel_because)

    def _context(self, parallel: int) -> tuple[int, str]:
        wishes, trained = self.wishes, self.model.context_length
        if wishes.context is not None:
            return wishes.context, "you asked for it"
        needed = self._needed_tokens()
        context = max(min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT), needed)
        if needed >= context:
            return context, "prompt and answer need it"
        base = self._quick(context, parallel)
        floor = max(CONTEXT_FLOOR, needed)
        while context > floor and not (base.fits and self._share(base) <= CACHE_SHARE):
            context = max(context // 2, floor)
            base = self._quick(context, parallel)
        if not base.fits:
            return min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT), "nothing fits; the default"
        if context < min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT):
            return context, "more would take too much of the memory beside the weights"
        # The default of several streams comes first: it is what more context is measured with.
        streams = self.wishes.parallel or DEFAULT_PARALLEL
        for larger in GENEROUS_CONTEXTS:
            if trained is not None and context < min(larger, trained):
                more = self._quick(min(larger, trained), streams)
                if self._cheap(more, base, GENEROUS_SHARE):
                    context = min(larger, trained)
                    break
        if context == trained:
            return context, "as long as the model was trained for"
        reach = f", of {trained:,} it was trained for" if trained else ""
        return context, f"enough for a talk with tools{reach}"

    def _needed_tokens(self) -> int:
        """What the described request fills; 0 if none was described."""
        prompt, output = self.wishes.prompt_tokens, self.wishes.output_tokens
        if prompt is None and output is None:
            return 0
        prompt = DEFAULT_PROMPT_TOKENS if prompt is None else prompt
        return prompt + (DEFAULT_OUTPUT_TOKENS if output is None else output)

    def _quick(self, context: int, parallel: int) -> Trial:
        return self.best(context, parallel, ubatches=UBATCHES[:1])

    def _cheap(self, trial: Trial, base: Trial, share: float) -> bool:
        if not trial.fits or trial.settings.cache_type_k != base.settings.cache_type_k:
            return False
        if self._share(trial) > share:
            return False
        before, after = base.request_seconds, trial.request_seconds
        if before is None or after is None:
            return trial.settings.cpu_expert_layers <= base.settings.cpu_expert_layers + 1
        return after <= before * SLOWER_AT_MOST

    def _share(self, trial: Trial) -> float:
        """The cache as a part of all memory that the weights leave."""
        devices = trial.ledger.devices
        memory = trial.shared_bytes or sum(device.capacity_bytes or 0 for device in devices)
        left = memory - sum(device.weights_bytes for device in devices)
        cache = sum(device.cache_bytes for device in devices)
        return cache / left if left > 0 else float("inf")

    def _bounded(self, settings: Settings, bare: Ledger, learned: Mapping[str, int]) -> Settings:
        """With bounds for prompt cache and checkpoints, out of what host memory is left."""
        memory = self.inventory.memory
        takes = {d.device: d.total_bytes + learned.get(d.device, 0) for d in bare.devices}
        left = memory.available_bytes - (sum(takes.values()) if memory.unified else takes[HOST])
        state_bytes = self.checkpoint_bytes(settings)
        prompts, checkpoints = self.wishes.prompt_cache_bytes, self.wishes.context_checkpoints
        if prompts is None:
            prompts = bounds.prompt_cache_bytes(left)
        if checkpoints is None:
            checkpoints = bounds.checkpoints(left, state_bytes, settings.parallel)
        return replace(settings, prompt_cache_bytes=prompts, context_checkpoints=checkpoints)

    def checkpoint_bytes(self, settings: Settings) -> int:
        """One snapshot of a stream: its recurrent state and its windows. 0 if it needs none or if
        the architecture's cache is not known."""
        layers = self.model.trunk_layers or ()
        windows = kv.window_bytes(
            layers, settings.cache_type_k, settings.cache_type_v, ubatch=settings.ubatch
        )
        return kv.state_bytes(layers) + windows


def _within(inventory: Inventory, budget_bytes: int | None) -> Inventory:
    """The machine with no more memory than the budget: on each GPU, or on a host without any. A
    GPU that shares the host's memory has no more of it than is free."""
    memory = inventory.memory
    if budget_bytes is not None and (not inventory.gpus or memory.unified):
        memory = replace(memory, available_bytes=min(memory.available_bytes, budget_bytes))
    gpus = []
    for gpu in inventory.gpus:
        known = gpu.memory_bytes if gpu.free_bytes is None else gpu.free_bytes
        limits = [known, budget_bytes, memory.available_bytes if gpu.shared else None]
        free = min((bound for bound in limits if bound is not None), default=None)
        gpus.append(replace(gpu, free_bytes=free))
    return replace(inventory, memory=memory, gpus=tuple(gpus))


def _without_bounds(settings: Settings) -> Settings:
    return replace(settings, prompt_cache_bytes=0, context_checkpoints=0)


def _differences(formula: Ledger, engine: Ledger) -> dict[str, int]:
    """Bytes that the engine found above the formula, by device."""
    found = {device.device: device.total_bytes for device in engine.devices}
    return {
        device.device: found.get(device.device, device.total_bytes) - device.total_bytes
        for device in formula.devices
    }
