"""A plan that was kept: what `plan --json` wrote, read again.

Plan files travel between machines and through editors, so nothing in them is believed before it was
looked at: every number has a range and every name a set of values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from moestro.errors import HardwareError, NotAPlan
from moestro.hardware import Inventory
from moestro.planning.plan import VERSION, Plan
from moestro.planning.settings import INT_MAX, CacheType, FlashAttention, Reason, Settings, Source
from moestro.planning.workload import Workload

_MOST_BYTES = 16 << 20
_MOST_BLOCKS = 100_000
_MOST_SIZE_BYTES = 1 << 60
_AGAIN = "Make it again: moestro plan MODEL --json > plan.json"


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """`files` are paths or addresses as the plan's author had them; `expert_blocks` numbers of the
    blocks with routed experts, multi-token prediction among them, as `block_count` counts them."""

    name: str | None
    architecture: str
    quantization: str | None
    files: tuple[str, ...]
    tensor_bytes: int
    context_length: int | None
    block_count: int
    expert_blocks: tuple[int, ...]
    mtp_layers: int
    projector: str | None


@dataclass(frozen=True, slots=True)
class PlannedMemory:
    """`device` is `CPU`, `GPU0`, …"""

    device: str
    capacity_bytes: int | None
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    other_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class PlanFile:
    """What is left of a `Plan` in its file: enough to run it, or to look at it again."""

    model: PlannedModel
    hardware: Inventory
    workload: Workload
    settings: Settings
    fits: bool | None
    memory: tuple[PlannedMemory, ...]
    reasons: tuple[Reason, ...]

    @staticmethod
    def of(plan: Plan) -> PlanFile:
        """A plan at hand as its file would have it."""
        return PlanFile.from_json(plan.to_json())

    @staticmethod
    def read(path: Path) -> PlanFile:
        """Raises NotAPlan: it is not there, or not a plan."""
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise NotAPlan(f"The plan {path} could not be read: {why}.", hint=_AGAIN) from error
        if len(data) > _MOST_BYTES:
            raise NotAPlan(f"{path} is too large to be a plan.", hint=_AGAIN)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotAPlan(f"{path} is not JSON, so it is not a plan.", hint=_AGAIN) from error
        return PlanFile.from_json(value, str(path))

    @staticmethod
    def from_json(value: Any, name: str = "This") -> PlanFile:
        """Raises NotAPlan: not what `Plan.to_json` writes, or of another version."""
        if not isinstance(value, dict) or "settings" not in value or "model" not in value:
            raise NotAPlan(f"{name} is not a plan.", hint=_AGAIN)
        version = value.get("version")
        if version != VERSION:
            raise NotAPlan(
                f"{name} is a plan of version {version!r}; this moestro reads version {VERSION}.",
                hint=_AGAIN,
            )
        try:
            return _plan_file(value)
        except (LookupError, TypeError, ValueError, AttributeError, HardwareError) as error:
            said = error.args[0] if error.args else type(error).__name__
            raise NotAPlan(f"{name} is a damaged plan: {said}.", hint=_AGAIN) from error


def _plan_file(value: dict[str, Any]) -> PlanFile:
    workload = {name: _whole(value["workload"], name, 0) for name in _names(Workload)}
    return PlanFile(
        model=_model(value["model"]),
        hardware=Inventory.from_json(value["hardware"]),
        workload=Workload(**workload),
        settings=_settings(value["settings"]),
        fits=_one_of(value["fits"], (True, False, None), "fits"),
        memory=tuple(_memory(device) for device in value["memory"]),
        reasons=tuple(
            Reason(
                _text(reason, "setting"),
                _text(reason, "because"),
                _one_of(reason["source"], get_args(Source), "source"),
            )
            for reason in value["reasons"]
        ),
    )


def _model(value: dict[str, Any]) -> PlannedModel:
    blocks = _whole(value, "block_count", 0, _MOST_BLOCKS)
    experts = tuple(value["expert_blocks"])
    if not all(type(block) is int and 0 <= block < blocks for block in experts):
        raise ValueError("expert_blocks names blocks that the model does not have")
    files = tuple(_text(file, "location") for file in value["files"])
    if not files:
        raise ValueError("the model has no file")
    return PlannedModel(
        name=_text_or_none(value, "name"),
        architecture=_text(value, "architecture"),
        quantization=_text_or_none(value, "quantization"),
        files=files,
        tensor_bytes=_whole(value, "tensor_bytes", 0, _MOST_SIZE_BYTES),
        context_length=None
        if value["context_length"] is None
        else _whole(value, "context_length", 0),
        block_count=blocks,
        expert_blocks=experts,
        mtp_layers=_whole(value, "mtp_layers", 0, _MOST_BLOCKS),
        projector=_text_or_none(value, "projector"),
    )


def _memory(value: dict[str, Any]) -> PlannedMemory:
    sizes = {
        name: _whole(value, name, 0, _MOST_SIZE_BYTES)
        for name in _names(PlannedMemory)
        if name not in ("device", "capacity_bytes")
    }
    capacity = value["capacity_bytes"]
    if capacity is not None:
        capacity = _whole(value, "capacity_bytes", 0, _MOST_SIZE_BYTES)
    return PlannedMemory(device=_text(value, "device"), capacity_bytes=capacity, **sizes)


_FLAGS = ("unified", "cache_on_host")
_AT_LEAST_ONE = ("context", "parallel", "threads", "ubatch")
_SIZES = ("expert_cache_bytes", "prompt_cache_bytes")


def _settings(value: dict[str, Any]) -> Settings:
    strange = set(value) - set(_names(Settings))
    if strange:
        raise ValueError(f"there is no setting {', '.join(sorted(strange))}")
    found: dict[str, Any] = {}
    for name in value:
        if name in _FLAGS:
            found[name] = _one_of(value[name], (True, False), name)
        elif name in ("cache_type_k", "cache_type_v"):
            found[name] = _one_of(value[name], get_args(CacheType), name)
        elif name == "flash_attention":
            found[name] = _one_of(value[name], get_args(FlashAttention), name)
        elif name == "tensor_split":
            found[name] = _split(value[name])
        elif name == "gpu_layers" and value[name] is None:
            found[name] = None
        elif name in _SIZES:
            found[name] = _whole(value, name, 0, _MOST_SIZE_BYTES)
        else:
            found[name] = _whole(value, name, 1 if name in _AT_LEAST_ONE else 0)
    return Settings(**found)


def _split(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    shares = tuple(value)
    if not shares or not all(type(s) in (int, float) and 0 <= s < float("inf") for s in shares):
        raise ValueError("tensor_split is not a list of shares")
    return tuple(map(float, shares))


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _whole(value: dict[str, Any], name: str, least: int, most: int = INT_MAX) -> int:
    number = value[name]
    if type(number) is not int or not least <= number <= most:
        raise ValueError(f"{name} is {number!r}")
    return number


def _text(value: dict[str, Any], name: str) -> str:
    text = value[name]
    if not isinstance(text, str) or not text or not text.isprintable():
        raise ValueError(f"{name} is {text!r}")
    return text


def _text_or_none(value: dict[str, Any], name: str) -> str | None:
    return None if value[name] is None else _text(value, name)


def _one_of(value: Any, allowed: tuple[Any, ...], name: str) -> Any:
    if not any(value is one or (isinstance(one, str) and value == one) for one in allowed):
        raise ValueError(f"{name} is {value!r}")
    return value
