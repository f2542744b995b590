"""A plan that was kept: what `plan --json` wrote, read again.

Plan files travel between machines and through editors, so nothing in them is believed before it was
looked at: every number has a range, every name a set of values, no text anything that a terminal
would obey, and what belongs together has to fit together.
"""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from moestro.errors import HardwareError, NotAPlan
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory
from moestro.planning.placement import HOST, gpu_name
from moestro.planning.plan import VERSION, Plan
from moestro.planning.settings import (
    INT_MAX,
    CacheType,
    Family,
    FlashAttention,
    LoadMode,
    Ngram,
    PlannedEngine,
    Reason,
    Settings,
    Source,
)
from moestro.planning.workload import Workload
from moestro.words import shown

MOST_BYTES = 16 << 20
_MOST_BLOCKS = 100_000
_MOST_SIZE_BYTES = 1 << 60
_AGAIN = "Make it again: moestro plan MODEL --json > plan.json"

_DISOBEYED = frozenset(("Cc", "Cs", "Zl", "Zp"))
_DIRECTIONS = frozenset(
    "\N{ARABIC LETTER MARK}\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}"
    "\N{LEFT-TO-RIGHT EMBEDDING}\N{RIGHT-TO-LEFT EMBEDDING}\N{POP DIRECTIONAL FORMATTING}"
    "\N{LEFT-TO-RIGHT OVERRIDE}\N{RIGHT-TO-LEFT OVERRIDE}\N{LEFT-TO-RIGHT ISOLATE}"
    "\N{RIGHT-TO-LEFT ISOLATE}\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}"
)


def legible(text: str) -> bool:
    """Whether people see of `text` what programs do: no control sign, no line break, none that
    turns the direction of writing, and no half of a sign."""
    return not any(sign in _DIRECTIONS or unicodedata.category(sign) in _DISOBEYED for sign in text)


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
    """`device` is `CPU`, `GPU0`, …: each of the machine has its own, used or not."""

    device: str
    capacity_bytes: int | None
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    other_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class PlanFile:
    """What is left of a `Plan` in its file: enough to run it, or to look at it again.

    `findings` are those by which it fails.
    """

    model: PlannedModel
    hardware: Inventory
    workload: Workload
    settings: Settings
    engine: PlannedEngine
    fits: bool | None
    memory: tuple[PlannedMemory, ...]
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...]

    @staticmethod
    def of(plan: Plan) -> PlanFile:
        """A plan at hand as its file would have it."""
        return PlanFile.from_json(plan.to_json(), f"The plan of {plan.model.files[0].location}")

    @staticmethod
    def read(path: Path) -> PlanFile:
        """Raises NotAPlan: it is not there, or not a plan."""
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise NotAPlan(f"The plan {path} could not be read: {why}.", hint=_AGAIN) from error
        return PlanFile.from_bytes(data, str(path))

    @staticmethod
    def from_bytes(data: bytes, name: str) -> PlanFile:
        """What `plan --json` printed; `name` is whence it came.

        Raises NotAPlan: something else, or the error that it printed in a plan's place.
        """
        if len(data) > MOST_BYTES:
            raise NotAPlan(f"{name} is too large to be a plan.", hint=_AGAIN)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotAPlan(f"{name} is not JSON, so it is not a plan.", hint=_AGAIN) from error
        if isinstance(value, dict) and isinstance(value.get("error"), dict):
            said = shown(str(value["error"].get("message")), 300)
            raise NotAPlan(f"{name} holds no plan, since making it failed: {said}")
        return PlanFile.from_json(value, name)

    @staticmethod
    def from_json(value: Any, name: str = "This") -> PlanFile:
        """Raises NotAPlan: not what `Plan.to_json` writes, or of another version."""
        name = shown(name, 200)
        if not isinstance(value, dict) or "settings" not in value or "model" not in value:
            raise NotAPlan(f"{name} is not a plan.", hint=_AGAIN)
        version = value.get("version")
        if version != VERSION:
            raise NotAPlan(
                f"{name} is a plan of version {shown(repr(version))}; this moestro reads version "
                f"{VERSION}.",
                hint=_AGAIN,
            )
        try:
            return _plan_file(value)
        except (
            LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError,
            HardwareError,
        ) as error:  # fmt: skip
            said = str(error.args[0]) if error.args else type(error).__name__
            said = shown(said, 300).removesuffix(".")
            raise NotAPlan(f"{name} is a damaged plan: {said}.", hint=_AGAIN) from error


def _plan_file(value: dict[str, Any]) -> PlanFile:
    for part in ("model", "hardware", "reasons", "settings", "engine"):
        _check_texts(value.get(part), part)
    workload = {name: _whole(value["workload"], name, 0) for name in _names(Workload)}
    settings = settings_from(value["settings"])
    found = PlanFile(
        model=_model(value["model"]),
        hardware=Inventory.from_json(value["hardware"]),
        workload=Workload(**workload),
        settings=settings,
        engine=_engine(value, settings),
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
        findings=tuple(
            _finding(finding) for finding in value["findings"] if _severity(finding) == "fail"
        ),
    )
    _check_devices(found)
    _check_placement(found)
    return found


def _check_texts(value: Any, name: str) -> None:
    """Raises ValueError for a text in `value`, however deep, that is not `legible`."""
    if isinstance(value, str) and not legible(value):
        raise ValueError(f"{name} is {value!a}, which no terminal shows as it is")
    if isinstance(value, list):
        for one in value:
            _check_texts(one, name)
    if isinstance(value, dict):
        for key, one in value.items():
            _check_texts(key, f"a name in {name}")
            if key != "findings":  # they make themselves plain, and may have several lines
                _check_texts(one, key)


def _check_devices(found: PlanFile) -> None:
    devices = [device.device for device in found.memory]
    gpus = [gpu_name(number) for number in range(len(found.hardware.gpus))]
    if devices != [HOST, *gpus]:
        raise ValueError(f"memory is of {devices}, and the machine has {[HOST, *gpus]}")


def _check_placement(found: PlanFile) -> None:
    """What the planner never writes, and would break an engine later."""
    settings, model = found.settings, found.model
    gpus, split = len(found.hardware.gpus), settings.tensor_split
    if split is not None and (len(split) != gpus or not 0 < sum(split) < float("inf")):
        raise ValueError(f"tensor_split is {split}, for {gpus} GPUs")
    experts = model.expert_blocks[: settings.cpu_expert_layers]
    if settings.cpu_expert_layers > len(model.expert_blocks):
        raise ValueError(
            f"cpu_expert_layers is {settings.cpu_expert_layers}, and the model has "
            f"{len(model.expert_blocks)} blocks with experts"
        )
    every = model.block_count + 1
    first_on_gpu = every - (every if settings.gpu_layers is None else settings.gpu_layers)
    if settings.expert_cache_bytes and not (gpus and any(one >= first_on_gpu for one in experts)):
        raise ValueError(
            "expert_cache_bytes is a cache for experts in main memory beside a GPU, and there are "
            "none"
        )


def _severity(finding: dict[str, Any]) -> str:
    return str(_one_of(finding["severity"], tuple(map(str, Severity)), "severity"))


def _finding(value: dict[str, Any]) -> Finding:
    return Finding(
        Severity.FAIL,
        _text(value, "code"),
        _text(value, "title"),
        _text_or_none(value, "evidence"),
        _text_or_none(value, "fix"),
    )


def _model(value: dict[str, Any]) -> PlannedModel:
    blocks = _whole(value, "block_count", 0, _MOST_BLOCKS)
    experts = tuple(value["expert_blocks"])
    if not all(type(block) is int and 0 <= block < blocks for block in experts):
        raise ValueError("expert_blocks names blocks that the model does not have")
    if any(block >= following for block, following in pairwise(experts)):
        raise ValueError("expert_blocks is not in order")
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


_FLAGS = ("unified", "cache_on_host", "repack")
_AT_LEAST_ONE = ("context", "parallel", "threads", "ubatch", "threads_batch", "batch")
_OR_NONE = ("gpu_layers", "threads_batch", "batch")
_NAMES = {
    "cache_type_k": CacheType,
    "cache_type_v": CacheType,
    "flash_attention": FlashAttention,
    "load_mode": LoadMode,
    "ngram": Ngram,
}
_SIZES = ("expert_cache_bytes", "prompt_cache_bytes")


def settings_from(value: dict[str, Any]) -> Settings:
    """Settings as `Settings.to_json` writes them, from a file that may hold anything.

    Raises ValueError, TypeError or LookupError: not such settings.
    """
    strange = set(value) - set(_names(Settings))
    if strange:
        raise ValueError(f"there is no setting {', '.join(sorted(strange))}")
    found: dict[str, Any] = {}
    for name in value:
        if name in _FLAGS:
            found[name] = _one_of(value[name], (True, False), name)
        elif name in _NAMES:
            found[name] = _one_of(value[name], get_args(_NAMES[name]), name)
        elif name == "engine":
            found[name] = _text(value, name)
        elif name == "mtp_p_min":
            found[name] = _probability(value, name)
        elif name == "tensor_split":
            found[name] = _split(value[name])
        elif name in _OR_NONE and value[name] is None:
            found[name] = None
        elif name in _SIZES:
            found[name] = _whole(value, name, 0, _MOST_SIZE_BYTES)
        else:
            found[name] = _whole(value, name, 1 if name in _AT_LEAST_ONE else 0)
    return Settings(**found)


def _engine(value: dict[str, Any], settings: Settings) -> PlannedEngine:
    """What the plan says of its engine; plans of before that have one had the embedded one."""
    said = value.get("engine")
    if said is None:
        return PlannedEngine.called(settings.engine)
    found = PlannedEngine(
        _text(said, "id"),
        _one_of(said["family"], get_args(Family), "family"),
        _text_or_none(said, "version"),
    )
    if os.sep in found.id and not os.path.isabs(found.id):
        raise ValueError(f"engine is {found.id!r}, which is another program in every folder")
    if found.id != settings.engine:
        raise ValueError(f"engine is {found.id!r}, and the settings have {settings.engine!r}")
    return found


def _probability(value: dict[str, Any], name: str) -> float:
    number = value[name]
    if type(number) not in (int, float) or not 0 <= number <= 1:
        raise ValueError(f"{name} is {number!r}")
    return float(number)


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
    if not isinstance(text, str) or not text:
        raise ValueError(f"{name} is {text!r}")
    return text


def _text_or_none(value: dict[str, Any], name: str) -> str | None:
    return None if value[name] is None else _text(value, name)


def _one_of(value: Any, allowed: tuple[Any, ...], name: str) -> Any:
    if not any(value is one or (isinstance(one, str) and value == one) for one in allowed):
        raise ValueError(f"{name} is {value!r}")
    return value
