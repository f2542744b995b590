"""What `tune` found earlier, as wishes for the planner: `plan`, `up`, `run` and `chat` begin there.

The planner then treats it like what a user fixed: it counts the memory, and a dry run is asked of
the engine. What the user does fix himself comes first.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from moestro.errors import MoestroError
from moestro.findings import Finding, Severity
from moestro.model import ModelSpec
from moestro.planning import Plan, Wishes
from moestro.planning.settings import EMBEDDED, Reason, Settings
from moestro.tune.store import StoredTune, stored

FROM_SETTINGS = {
    "threads": "threads",
    "threads_batch": "threads_batch",
    "ubatch": "ubatch",
    "batch": "batch",
    "flash_attention": "flash_attention",
    "repack": "repack",
    "load_mode": "load_mode",
    "ngram": "ngram",
    "mtp": "mtp_depth",
    "mtp_p_min": "mtp_p_min",
    "engine": "engine",
    "parallel": "parallel",
    "cache_type": "cache_type_k",
    "gpu_layers": "gpu_layers",
    "cpu_expert_layers": "cpu_expert_layers",
    "expert_cache_bytes": "expert_cache_bytes",
}
"""The wish, and the setting that answers it. Context and bounds are the planner's: they are about
memory, not about speed."""

_ONLY_GPUS = frozenset(("gpu_layers", "cpu_expert_layers", "expert_cache_bytes"))


def completed(wishes: Wishes, settings: Settings, *, with_gpus: bool) -> Wishes:
    """The wishes, with what nobody fixed as in `settings`."""
    changes: dict[str, Any] = {
        wish: getattr(settings, name)
        for wish, name in FROM_SETTINGS.items()
        if getattr(wishes, wish) is None and (with_gpus or wish not in _ONLY_GPUS)
    }
    return replace(wishes, unified=wishes.unified or settings.unified, **changes)


def recalled(model: ModelSpec, identity: str, wishes: Wishes) -> StoredTune | None:
    """The last result for this model on this machine that can be believed; None without one."""
    paths = [Path(file.location) for file in model.files]
    if wishes.untuned or model.format != "gguf" or not all(path.is_file() for path in paths):
        return None
    try:
        found = stored(identity, paths)
        if found.tuned is None or found.stale:
            return None
        if not _is_here(found.tuned):
            return None
    except MoestroError:  # whatever it was, there is a plan without it
        return None
    return found.tuned


def _is_here(tuned: StoredTune) -> bool:
    """Whether the engine is still the one that it was measured with."""
    from moestro.engine.registry import embedded, engine_named

    engine = tuned.settings.engine
    now = embedded() if engine == EMBEDDED else engine_named(engine)
    return now.version == tuned.engine_version


def measured(plan: Plan, reasons: tuple[Reason, ...]) -> Plan:
    """The plan with what was measured in place of what was assumed of the same settings."""
    found = {reason.setting: reason for reason in reasons}
    kept = tuple(found.pop(reason.setting, reason) for reason in plan.reasons)
    return replace(plan, reasons=(*kept, *found.values()))


def told_of(plan: Plan, tuned: StoredTune, wishes: Wishes) -> Plan:
    """The plan that was made with `tuned`, saying so; `wishes` are the user's own."""
    gain = "" if tuned.gain is None else f"{tuned.gain.expected:.2f}× the plan's own settings, "
    finding = Finding(
        Severity.INFO,
        "tuned",
        "Settings are those that moestro tune found on this machine",
        f"for {tuned.workload}: {gain}{tuned.tuned_at:%Y-%m-%d}",
        "--untuned plans without them.",
    )
    open_ = {name for wish, name in FROM_SETTINGS.items() if getattr(wishes, wish) is None}
    with_it = Reason("", f"measured with it for {tuned.workload}", "measured")
    reasons = tuple(
        replace(with_it, setting=one.setting)
        if one.source == "user" and one.setting in open_
        else one
        for one in plan.reasons
    )
    plan = replace(plan, reasons=reasons)
    return replace(measured(plan, tuned.reasons), findings=(*plan.findings, finding))
