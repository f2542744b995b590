"""The axes for one model, machine and set of engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

from moestro.engine.registry import EXPERT_CACHE, LOAD_MODE, MTP, NGRAM, REPACK, UNIFIED, EngineInfo
from moestro.planning import Planner
from moestro.planning.placement import expert_blocks
from moestro.planning.search import split
from moestro.planning.settings import Ngram, Settings
from moestro.tune.axis import Axis, Value, said
from moestro.tune.candidate import Candidate, Excluded
from moestro.units import format_bytes
from moestro.words import shown

ENGINE = "engine"
DEFAULTS = "llama.cpp's defaults"
UBATCHES = (128, 256, 512, 1024, 2048)
DEFAULT_BATCH = 2048
DEFAULT_UBATCH = 512
DEFAULT_SLOTS = 4
MTP_DEPTHS = (0, 1, 2, 3, 4)
P_MINS = (0.0, 0.3, 0.6)
MOST_LAYERS_AWAY = 2
"""How far from the planner's number of expert layers on the CPU others are tried."""


class Finder:
    """Collects axes; what is left out for good goes to `excluded`, with its reason."""

    def __init__(
        self,
        planner: Planner,
        start: Settings,
        engines: tuple[EngineInfo, ...],
        fixed: frozenset[str],
        streams: int,
        allow_quality: bool,
        logical_cores: int | None,
    ) -> None:
        self.planner = planner
        self.model = planner.model
        self.start = start
        self.engines = {engine.id: engine for engine in engines}
        self.fixed = fixed
        self.streams = streams
        self.allow_quality = allow_quality
        self.logical_cores = logical_cores or _logical_cores()
        self.excluded: list[Excluded] = []

    def opening(self) -> tuple[Candidate, ...]:
        """Each engine, with and without repacking, otherwise as in `start`; and the defaults."""
        found = [
            Candidate(label, settings, ENGINE)
            for label, settings in self._engines()
            if settings != self.start
        ]
        defaults = self._defaults()
        if defaults not in (self.start, *(one.settings for one in found)):
            found.append(Candidate(DEFAULTS, defaults, ENGINE))
        return tuple(found)

    def twins(self) -> frozenset[str]:
        """Engines that are the code of the start's; beside a GPU that would not say enough."""
        mine = None if self.planner.inventory.gpus else self.engines.get(self.start.engine)
        return frozenset(
            one.id
            for one in self.engines.values()
            if mine is not None and one is not mine and one.same_code(mine)
        )

    def gentler(self, crashed: Candidate) -> tuple[Candidate, ...]:
        """The same engine with less of what engines have been seen to crash on."""
        settings, found = crashed.settings, []
        if settings.parallel > self.streams and "parallel" not in self.fixed:
            slots = replace(settings, parallel=self.streams)
            found.append((_counted(self.streams, "slot"), slots))
        if settings.flash_attention != "off" and "flash_attention" not in self.fixed:
            found.append(("no flash attention", replace(settings, flash_attention="off")))
        return tuple(Candidate(f"{crashed.label}, {label}", one, ENGINE) for label, one in found)

    def axes(self) -> tuple[Axis, ...]:
        every = (
            self._ubatch(),
            self._threads_batch(),
            self._threads(),
            self._flash_attention(),
            self._cache_type(),
            self._mtp(),
            self._p_min(),
            self._ngram(),
            self._slots(),
            self._batch(),
            self._cpu_experts(),
            self._expert_cache(),
            self._cache_on_host(),
            self._load_mode(),
        )
        return tuple(axis for one in every if one is not None and (axis := self._free(one)))

    def _free(self, axis: Axis) -> Axis | None:
        """The axis without what would move a fixed setting; None where nothing is left to try."""
        kept = tuple(value for value in axis.values if not self._moves_fixed(value))
        named = sorted({name for value in axis.values for name, _ in value.changes} & self.fixed)
        if len(kept) < 2 and all(value.holds(self.start) for value in kept):
            if named:
                self._leave_out(axis.name, f"you fixed {' and '.join(named)}")
            return None
        first = tuple(label for label in axis.first if label in {value.label for value in kept})
        return replace(axis, values=kept, first=first)

    def _moves_fixed(self, value: Value) -> bool:
        moved = value.at(self.start)
        return any(said(moved, name) != said(self.start, name) for name in self.fixed)

    def _leave_out(self, axis: str, because: str, label: str = "") -> None:
        self.excluded.append(Excluded(label or axis, because, axis=axis))

    # Engines

    def _engines(self) -> Iterator[tuple[str, Settings]]:
        architecture = self.model.architecture
        for engine in self.engines.values():
            name = engine_label(engine)
            if engine.id != self.start.engine and "engine" in self.fixed:
                self._leave_out(ENGINE, "you fixed engine", name)
                continue
            if (
                engine.devices
                and not self.planner.inventory.gpus
                and engine.id != self.start.engine
            ):
                because = "it computes on a GPU, and this plan is for none; name it with --engine"
                self._leave_out(ENGINE, because, name)
                continue
            if engine.runs(architecture) is False:
                self._leave_out(ENGINE, f"it does not know {shown(architecture)}", name)
                continue
            suited = self._suited(self.start, engine)
            lost = [n for n in self.fixed if getattr(suited, n) != getattr(self.start, n)]
            lost = [n for n in lost if n != "engine"]
            if lost:
                self._leave_out(ENGINE, f"it lacks {' and '.join(sorted(lost))}", name)
                continue
            yield name, suited
            if self._loses_attention(suited):
                attention = self.start.flash_attention
                whole = replace(suited, flash_attention=attention, parallel=1, unified=False)
                yield f"{name}, 1 slot", whole
            if REPACK in engine.features and "repack" not in self.fixed:
                other = "without" if suited.repack else "with"
                yield f"{name}, {other} repacking", replace(suited, repack=not suited.repack)

    def _defaults(self) -> Settings:
        """What llama-server would do by itself, as far as nothing is fixed. Its prompt cache of
        8 GiB and its 32 checkpoints a slot are not taken over: the plan bounds both."""
        cpu = self.planner.inventory.cpu
        changes: dict[str, Any] = {
            "threads": min(cpu.physical_cores or cpu.usable_cores, cpu.usable_cores),
            "threads_batch": None,
            "batch": DEFAULT_BATCH,
            "ubatch": DEFAULT_UBATCH,
            "flash_attention": "auto",
            "repack": True,
            "load_mode": "auto",
            "parallel": max(self.start.parallel, DEFAULT_SLOTS),
            "unified": True,
            "mtp_depth": 0,
            "mtp_p_min": 0.0,
            "ngram": "off",
        }
        free = {name: value for name, value in changes.items() if name not in self.fixed}
        engine = self.engines.get(self.start.engine)
        found = replace(self.start, **free)
        return found if engine is None else self._suited(found, engine)

    def _suited(self, settings: Settings, engine: EngineInfo) -> Settings:
        """`settings` on that engine, without what it cannot do."""
        found = _without(settings, engine)
        if found.parallel == 1 or found.flash_attention == "off" or engine.planned.attends_in_slots:
            return found
        if self.streams == 1 and "parallel" not in self.fixed:
            return replace(found, parallel=1, unified=False)
        return replace(found, flash_attention="off")

    def _loses_attention(self, suited: Settings) -> bool:
        """Whether one slot, in which requests wait for each other, would have flash attention."""
        lost = suited.flash_attention != self.start.flash_attention
        return lost and suited.parallel > 1 and "parallel" not in self.fixed

    def _can(self, settings: Settings, feature: str) -> bool:
        engine = self.engines.get(settings.engine)
        return engine is None or feature in engine.features

    # Computing

    def _ubatch(self) -> Axis:
        workload = self.planner.workload(self.start)
        together = workload.prompt_tokens * self.streams
        # One ubatch above the prompts holds them whole; more changes nothing.
        enough = next((size for size in UBATCHES if size >= together), UBATCHES[-1])
        sizes = {size for size in UBATCHES if size <= enough} | {self.start.ubatch}
        return Axis(
            "ubatch",
            tuple(Value.of(f"ubatch {size}", ubatch=size) for size in sorted(sizes)),
            ordered=True,
            after=frozenset({ENGINE, "threads_batch", "batch", "flash_attention", "slots"}),
            prompt_gain=0.2,
            decode_gain=0.01 if self.streams > 1 else 0.0,
        )

    def _thread_counts(self, now: int) -> tuple[int, ...]:
        cpu = self.planner.inventory.cpu
        cores = cpu.usable_cores
        counts = {now, cores, cores - 1, cores // 2 if cores > 2 else 1}
        if cpu.physical_cores == cores and self.logical_cores > cores:
            counts.add(self.logical_cores)
        return tuple(sorted(count for count in counts if count >= 1))

    def _threads(self) -> Axis:
        """Those that write. Those that read stay as they were."""
        return Axis(
            "threads",
            tuple(
                Value.of(f"{_counted(count, 'thread')}", threads=count)
                for count in self._thread_counts(self.start.threads)
            ),
            ordered=True,
            after=frozenset({ENGINE, "mtp", "cpu_expert_layers"}),
            decode_gain=0.12,
        )

    def _threads_batch(self) -> Axis:
        now = self.start.threads_batch or self.start.threads
        return Axis(
            "threads_batch",
            tuple(
                Value.of(f"{_counted(count, 'thread')} to read prompts", threads_batch=count)
                for count in self._thread_counts(now)
            ),
            ordered=True,
            after=frozenset({ENGINE, "cpu_expert_layers"}),
            prompt_gain=0.08,
        )

    def _batch(self) -> Axis | None:
        sizes = sorted({DEFAULT_UBATCH, DEFAULT_BATCH, self.start.batch or DEFAULT_BATCH})
        values = [Value.of("batch as it follows", batch=None)]
        values += [Value.of(f"batch {size}", batch=size) for size in sizes]
        several = self.streams > 1
        return Axis(
            "batch",
            tuple(values),
            after=frozenset({"ubatch"}),
            prompt_gain=0.04 if several else 0.012,
            decode_gain=0.04 if several else 0.0,
        )

    def _flash_attention(self) -> Axis:
        """ "auto" takes it wherever it can, so "on" would be the same again."""
        now = "on" if self.start.flash_attention == "on" else "auto"
        return Axis(
            "flash_attention",
            (
                Value.of("flash attention", flash_attention=now),
                Value.of("no flash attention", flash_attention="off"),
            ),
            after=frozenset({ENGINE, "cache_type"}),
            prompt_gain=0.05,
            decode_gain=0.04,
        )

    def _cache_type(self) -> Axis | None:
        """f16 loses nothing. q8_0 is proposed where the planner took it or the user allows it."""
        types = ["f16"]
        if self.allow_quality or "q8_0" in (self.start.cache_type_k, self.start.cache_type_v):
            types.append("q8_0")
        else:
            self._leave_out(
                "cache_type", "it changes answers a little; allow it to have it tried", "q8_0 cache"
            )
        same = self.start.cache_type_k == self.start.cache_type_v
        if not same or self.start.cache_type_k not in types:
            return None  # somebody chose those with care
        return Axis(
            "cache_type",
            tuple(
                Value.of(f"{name} cache", cache_type_k=name, cache_type_v=name) for name in types
            ),
            after=frozenset({ENGINE, "flash_attention"}),
            prompt_gain=0.015,
            decode_gain=0.04,
        )

    def _load_mode(self) -> Axis:
        return Axis(
            "load_mode",
            (
                Value.of("file mapped as the engine likes", load_mode=self.start.load_mode),
                *(
                    Value.of(label, load_mode=mode)
                    for label, mode in (("file mapped", "mmap"), ("file read whole", "none"))
                    if mode != self.start.load_mode
                    and not (mode == "mmap" and self.start.load_mode == "auto")
                ),
            ),
            prompt_gain=0.012,
            decode_gain=0.012,
            applies=lambda settings: self._can(settings, LOAD_MODE),
        )

    # Streams

    def _slots(self) -> Axis:
        """Slots and whether they share one cache. Nobody gets fewer slots than were asked for. One
        is among them without a GPU: a processor that is busy with one stream may serve several one
        after the other sooner than all at once."""
        now, streams = self.start.parallel, self.streams
        busy = streams > 1 and not self.planner.inventory.gpus
        counts = sorted({now, streams, max(streams // 2, 1), *((1,) if busy else ())})
        values = [
            Value.of(
                f"{_counted(count, 'slot')}{' sharing one cache' if unified else ''}",
                parallel=count,
                unified=unified,
            )
            for count in counts
            for unified in (False, True)
            if not (unified and count == 1)  # one slot has the cache to itself either way
            or (self.start.parallel, self.start.unified) == (count, unified)
        ]
        few, many = (0.05, 0.08) if streams > 1 else (0.015, 0.02)
        return Axis(
            "slots",
            tuple(values),
            after=frozenset({ENGINE, "mtp", "batch"}),
            prompt_gain=0.2 if busy else few,
            decode_gain=0.2 if busy else many,
            applies=lambda settings: self._can(settings, UNIFIED),
        )

    # Speculation

    def _mtp(self) -> Axis | None:
        if not self.model.mtp_layers:
            return None
        depths = sorted({*MTP_DEPTHS, self.start.mtp_depth})
        off: dict[str, Any] = {"mtp_depth": 0, "mtp_p_min": 0.0}
        return Axis(
            "mtp",
            tuple(
                Value.of(f"MTP depth {depth}", mtp_depth=depth)
                if depth
                else Value.of("no MTP", **off)
                for depth in depths
            ),
            ordered=True,
            first=("MTP depth 1", "MTP depth 3") if self.start.mtp_depth == 0 else (),
            after=frozenset({ENGINE, "threads", "slots", "cpu_expert_layers"}),
            decode_gain=0.3,
            applies=lambda settings: self._can(settings, MTP),
        )

    def _p_min(self) -> Axis | None:
        if not self.model.mtp_layers:
            return None
        least = sorted({*P_MINS, self.start.mtp_p_min})
        return Axis(
            "mtp_p_min",
            tuple(Value.of(f"drafts from {p:.0%} on", mtp_p_min=p) for p in least),
            ordered=True,
            after=frozenset({"mtp"}),
            decode_gain=0.05,
            applies=lambda settings: settings.mtp_depth > 0 and self._can(settings, MTP),
        )

    def _ngram(self) -> Axis:
        return Axis(
            "ngram",
            tuple(
                Value.of("no n-grams" if kind == "off" else f"n-grams {kind}", ngram=kind)
                for kind in get_args(Ngram)
            ),
            first=("n-grams simple", "n-grams mod"),
            after=frozenset({"mtp"}),
            decode_gain=0.08,
            applies=lambda settings: self._can(settings, NGRAM),
        )

    # GPU hosts

    def _cpu_experts(self) -> Axis | None:
        every = len(expert_blocks(self.model))
        if not self.planner.gpu_bytes or not every:
            return None
        now = self.start.cpu_expert_layers
        near = range(max(now - MOST_LAYERS_AWAY, 0), min(now + MOST_LAYERS_AWAY, every) + 1)
        return Axis(
            "cpu_expert_layers",
            tuple(
                Value.of(f"experts of {count} layers on the CPU", **self._placed(count))
                for count in near
            ),
            ordered=True,
            after=frozenset({"ubatch", "expert_cache", "cache_on_host"}),
            prompt_gain=0.05,
            decode_gain=0.06,
        )

    def _placed(self, count: int, **more: Any) -> dict[str, Any]:
        """Changes for as many layers of experts on the host; several GPUs share the rest anew."""
        if count == self.start.cpu_expert_layers and not more:
            return {"cpu_expert_layers": count, "tensor_split": self.start.tensor_split}
        moved = replace(self.start, cpu_expert_layers=count, **more)
        shares = split(self.model, moved, self.planner.gpu_bytes)
        return {"cpu_expert_layers": count, "tensor_split": shares, **more}

    def _expert_cache(self) -> Axis | None:
        if not self.planner.gpu_bytes or not self.start.cpu_expert_layers:
            return None
        now = self.start.expert_cache_bytes
        values = [
            Value.of(
                "no expert cache" if not now else f"expert cache of {format_bytes(now)}",
                expert_cache_bytes=now,
                **self._placed(self.start.cpu_expert_layers),
            )
        ]
        plain = self.planner.with_wishes(self.planner.wishes)
        free = replace(plain.wishes, cpu_expert_layers=None, expert_cache_bytes=None)
        if now:
            other = plain.with_wishes(replace(free, expert_cache_bytes=0)).best(
                self.start.context, self.start.parallel, ubatches=(self.start.ubatch,)
            )
        else:
            bare = plain.with_wishes(free)
            cached = bare.with_expert_cache(bare.trial(self.start))
            if cached is None:
                return None
            other = cached
        found = other.settings
        size = found.expert_cache_bytes
        values.append(
            Value.of(
                f"expert cache of {format_bytes(size)}" if size else "no expert cache",
                expert_cache_bytes=size,
                cpu_expert_layers=found.cpu_expert_layers,
                tensor_split=found.tensor_split,
            )
        )
        return Axis(
            "expert_cache",
            tuple(values),
            after=frozenset({"ubatch"}),
            prompt_gain=0.05,
            decode_gain=0.1,
            applies=lambda settings: self._can(settings, EXPERT_CACHE),
        )

    def _cache_on_host(self) -> Axis | None:
        """The KV cache in host memory makes room for experts on the GPU: as many as fit then."""
        if not self.planner.gpu_bytes:
            return None
        plain, now = self.planner.with_wishes(self.planner.wishes), self.start.cache_on_host
        values = [
            Value.of(
                "cache in host memory" if now else "cache on the GPU",
                cache_on_host=now,
                **self._placed(self.start.cpu_expert_layers),
            )
        ]
        counts = range(len(expert_blocks(self.model)) + 1)
        for count in counts:
            changes = self._placed(count, cache_on_host=not now)
            if plain.exactly(replace(self.start, **changes)).fits:
                label = "cache on the GPU" if now else "cache in host memory"
                layers = "" if count == self.start.cpu_expert_layers else f", {count} layers there"
                values.append(Value.of(label + layers, **changes))
                break
        return Axis(
            "cache_on_host",
            tuple(values),
            prompt_gain=0.02,
            decode_gain=0.06,
        )


def engine_label(engine: EngineInfo) -> str:
    """For people: which program, and which one of its kind."""
    if engine.origin == "embedded":
        return "the embedded engine"
    if engine.origin == "built":  # its id says all of it
        return shown(engine.id, 60)
    return f"{shown(engine.id, 80)} ({engine.family} {shown(engine.version, 40)})"


def _without(settings: Settings, engine: EngineInfo) -> Settings:
    """`settings` on that engine, without what it lacks."""
    can = engine.features
    changes: dict[str, Any] = {"engine": engine.id}
    if MTP not in can:
        changes |= {"mtp_depth": 0, "mtp_p_min": 0.0}
    if NGRAM not in can:
        changes["ngram"] = "off"
    if UNIFIED not in can:
        changes["unified"] = False
    if LOAD_MODE not in can:
        changes["load_mode"] = "auto"
    if EXPERT_CACHE not in can:
        changes["expert_cache_bytes"] = 0
    return replace(settings, **changes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _logical_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
