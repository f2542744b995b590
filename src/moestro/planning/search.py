"""Where the blocks and experts go: the fastest placement that fits.

For each cache type and ubatch that may be used, the placement is the one that leaves as much as
possible on the GPUs: experts move to host memory one block after the other, and only when all of
them are there do whole blocks follow. Memory on the GPUs falls with each step, so the first step
that fits is found by bisection; the caller's `evaluate` says what a step takes. Where experts stay
on the host, a cache for them on the GPU is tried in the place of those that went there. Among what
fits, the shortest request wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from moestro.model import ModelSpec, Role
from moestro.planning.placement import (
    HOST,
    block_count,
    expert_blocks,
    gpu_name,
    is_routed_expert,
)
from moestro.planning.settings import CacheType, Settings
from moestro.units import MIB

UBATCHES = (512, 1024, 2048, 256, 128)
"""In the order of preference between equals; 512 is the engine's default."""

WORTH_IT = 0.98
"""What is not the first choice has to save 2 % of a request's time."""

SMALLEST_CACHE = 64 * MIB


class Trial(Protocol):
    """Settings with what they take and bring. `over_bytes` says by how much a device is short."""

    @property
    def settings(self) -> Settings: ...
    @property
    def over_bytes(self) -> dict[str, int]: ...
    @property
    def fits(self) -> bool: ...
    @property
    def spare_bytes(self) -> int: ...
    @property
    def request_seconds(self) -> float | None: ...


T = TypeVar("T", bound=Trial)


@dataclass(frozen=True, slots=True)
class Space:
    """What may be varied. One value in a tuple is a value that stays."""

    ubatches: tuple[int, ...]
    cache_types: tuple[CacheType, ...]
    gpu_layers: int | None
    cpu_expert_layers: int | None
    gpu_bytes: tuple[int, ...]
    expert_cache_bytes: int | None = 0
    near: Settings | None = None
    """What a like search found: where this one begins to look."""


def search(model: ModelSpec, space: Space, base: Settings, evaluate: Callable[[Settings], T]) -> T:
    """The best trial of `space`; where nothing fits, the one with the first cache type and ubatch.
    A later cache type is tried only where nothing fits with those before."""
    first: T | None = None
    for cache_type in space.cache_types:
        of_type = replace(base, cache_type_k=cache_type, cache_type_v=cache_type)
        found = []
        for ubatch in space.ubatches:
            placed = _placed(model, space, replace(of_type, ubatch=ubatch), evaluate)
            found.append(placed)
            if space.expert_cache_bytes is None:
                with_cache = cached(model, space, placed, evaluate)
                found += [with_cache] if with_cache is not None else []
        fitting = [trial for trial in found if trial.fits]
        if fitting:
            return fastest(fitting)
        first = first or found[0]
    assert first is not None
    return first


def fastest(trials: Sequence[T]) -> T:
    """The first trial, unless another one saves time worth speaking of; without a forecast the one
    that leaves most on the GPUs."""
    best = trials[0]
    for trial in trials[1:]:
        mine, other = best.request_seconds, trial.request_seconds
        if mine is None or other is None:
            if _on_host(trial) < _on_host(best):
                best = trial
        elif other < mine * WORTH_IT:
            best = trial
    return best


def _placed(
    model: ModelSpec, space: Space, settings: Settings, evaluate: Callable[[Settings], T]
) -> T:
    if not space.gpu_bytes:
        return evaluate(replace(settings, gpu_layers=0))
    blocks, with_experts = block_count(model), len(expert_blocks(model))

    def at(layers: int, on_host: int) -> T:
        placed = replace(
            settings,
            gpu_layers=layers,
            cpu_expert_layers=on_host,
            expert_cache_bytes=space.expert_cache_bytes or 0,
        )
        shares = split(model, placed, space.gpu_bytes)
        return _balanced(evaluate(replace(placed, tensor_split=shares)), evaluate)

    all_layers, near = blocks + 1, space.near
    if space.gpu_layers is not None and space.cpu_expert_layers is not None:
        return at(min(space.gpu_layers, all_layers), min(space.cpu_expert_layers, with_experts))
    if space.gpu_layers is not None:
        layers = min(space.gpu_layers, all_layers)
        guess = None if near is None else near.cpu_expert_layers
        return _first_fit(range(with_experts + 1), lambda count: at(layers, count), guess)
    if space.cpu_expert_layers is not None:
        on_host = min(space.cpu_expert_layers, with_experts)
        return _first_fit(range(all_layers, -1, -1), lambda layers: at(layers, on_host))
    guess = None if near is None else near.cpu_expert_layers
    experts_first = _first_fit(range(with_experts + 1), lambda count: at(all_layers, count), guess)
    if _fits_gpus(experts_first):
        return experts_first
    guess = None if near is None else all_layers - (near.gpu_layers or 0)
    return _first_fit(range(all_layers, -1, -1), lambda layers: at(layers, with_experts), guess)


def _balanced(trial: T, evaluate: Callable[[Settings], T]) -> T:
    """Moves blocks from a GPU that is short to one that is not, as long as that helps. What a GPU
    holds besides blocks, and how much memory one more block takes, a split by bytes does not see.
    """
    while (shares := trial.settings.tensor_split) is not None and not _fits_gpus(trial):
        over = [trial.over_bytes.get(gpu_name(number), 0) for number in range(len(shares))]
        short = max(range(len(shares)), key=over.__getitem__)
        moved = [
            evaluate(replace(trial.settings, tensor_split=_moved(shares, short, other)))
            for other in range(len(shares))
            if not over[other] and shares[short] >= 1
        ]
        best = min(moved, key=_over_gpus, default=trial)
        if _over_gpus(best) >= _over_gpus(trial):
            break
        trial = best
    return trial


def _moved(shares: Sequence[float], short: int, other: int) -> tuple[float, ...]:
    change = {short: -1.0, other: 1.0}
    return tuple(share + change.get(number, 0.0) for number, share in enumerate(shares))


def _over_gpus(trial: Trial) -> int:
    return sum(over for device, over in trial.over_bytes.items() if device != HOST)


def cached(model: ModelSpec, space: Space, trial: T, evaluate: Callable[[Settings], T]) -> T | None:
    """`trial` with the GPU's experts on the host too, and what that leaves as a cache for all of
    them. None where no expert is on the host, where it fits nothing, without a forecast, since only
    that tells whether it pays, and with several GPUs, since large batches use one of them only."""
    settings = trial.settings
    if len(space.gpu_bytes) != 1 or not settings.cpu_expert_layers:
        return None
    if not trial.fits or trial.request_seconds is None:
        return None
    if space.cpu_expert_layers is None:
        settings = replace(settings, cpu_expert_layers=len(expert_blocks(model)))
        settings = replace(settings, tensor_split=split(model, settings, space.gpu_bytes))
    bare = evaluate(replace(settings, expert_cache_bytes=0))
    spare = bare.spare_bytes // MIB * MIB
    if spare < SMALLEST_CACHE:
        return None
    found = evaluate(replace(settings, expert_cache_bytes=spare))
    return found if found.fits else None


def _first_fit(steps: Sequence[int], at: Callable[[int], T], guess: int | None = None) -> T:
    """The first step whose GPUs suffice, by bisection; the last step if none does. `guess` is a
    step where to begin."""
    known: dict[int, T] = {}

    def fits(step: int) -> bool:
        if step not in known:
            known[step] = at(steps[step])
        return _fits_gpus(known[step])

    last = len(steps) - 1
    low, high = (0, last) if guess is None else _bracket(min(max(guess, 0), last), last, fits)
    if not fits(high):
        return known[high]
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return known[high]


def _bracket(guess: int, last: int, fits: Callable[[int], bool]) -> tuple[int, int]:
    """Bounds of the first step that fits, in growing strides from `guess`; (last, last) if none."""
    stride = 1
    if fits(guess):
        high = guess
        while high > 0:
            below = max(high - stride, 0)
            if not fits(below):
                return below + 1, high
            high, stride = below, stride * 2
        return 0, 0
    low = guess + 1
    while low <= last:
        above = min(low + stride - 1, last)
        if fits(above):
            return low, above
        low, stride = above + 1, stride * 2
    return last, last


def split(
    model: ModelSpec, settings: Settings, gpu_bytes: Sequence[int]
) -> tuple[float, ...] | None:
    """Blocks for each GPU so that the bytes on them are in proportion to their memory.

    The engine counts blocks, and blocks whose experts stay in host memory weigh little, so a split
    by memory alone would leave the first GPU nearly empty. None with fewer than two GPUs.
    """
    if len(gpu_bytes) < 2:
        return None
    count = block_count(model)
    layers = count + 1 if settings.gpu_layers is None else min(settings.gpu_layers, count + 1)
    first = count + 1 - layers
    sizes = _block_bytes(model, settings)[first:]
    if not sizes or not sum(gpu_bytes):
        return None
    total, memory = sum(sizes), sum(gpu_bytes)
    shares = [0] * len(gpu_bytes)
    done = 0.0
    gpu, bound = 0, gpu_bytes[0] / memory
    for size in sizes:
        # A block belongs to the GPU that its middle falls on.
        while gpu < len(gpu_bytes) - 1 and done + size / 2 > bound * total:
            gpu += 1
            bound += gpu_bytes[gpu] / memory
        shares[gpu] += 1
        done += size
    return tuple(float(share) for share in shares)


def _block_bytes(model: ModelSpec, settings: Settings) -> list[float]:
    """Bytes of each block and, last, of the output head, as far as they go to a GPU."""
    count = block_count(model)
    sizes = [0.0] * (count + 1)
    on_host = frozenset(expert_blocks(model)[: settings.cpu_expert_layers])
    for tensor in model.tensors:
        if tensor.layer is not None and tensor.layer < count:
            if not (tensor.layer in on_host and is_routed_expert(tensor)):
                sizes[tensor.layer] += tensor.size_bytes
        elif tensor.role is Role.OUTPUT or (
            tensor.role is Role.EMBEDDING and model.tied_embeddings
        ):
            sizes[count] += tensor.size_bytes
    for layer in model.layers or ():
        cells = [s.cell_bytes(settings.cache_type_k, settings.cache_type_v) for s in layer.stores]
        sizes[layer.index] += sum(cells) * settings.context * settings.parallel
    return sizes


def _fits_gpus(trial: Trial) -> bool:
    return _over_gpus(trial) == 0


def _on_host(trial: Trial) -> tuple[int, int]:
    settings = trial.settings
    return (settings.cpu_expert_layers, -(settings.gpu_layers or 0))


def allowed(asked: int | None, choices: Iterable[int]) -> tuple[int, ...]:
    """What the user fixed, or every choice."""
    return tuple(choices) if asked is None else (asked,)
