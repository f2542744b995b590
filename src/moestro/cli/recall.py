"""What `tune` found earlier, as wishes for the planner: `plan`, `up`, `run` and `chat` begin there.

The planner then treats it like what a user fixed: it counts the memory, and a dry run is asked of
the engine. What the user does fix himself comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from moestro.errors import MoestroError
from moestro.findings import Finding, Severity
from moestro.model import ModelSpec
from moestro.planning import Plan, Wishes
from moestro.planning.settings import EMBEDDED, Settings
from moestro.tune.result import TuneResult
from moestro.tune.store import StoredTune, found_nothing, outdated, stored

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
    "cache_on_host": "cache_on_host",
}
"""The wish, and the setting that answers it. Context and bounds are the planner's: they are about
memory, not about speed."""

_AGAIN = "moestro tune measures anew; --untuned plans without it."
_MOST_NAMED = 3
_ONLY_GPUS = frozenset(("gpu_layers", "cpu_expert_layers", "expert_cache_bytes", "cache_on_host"))


def completed(
    wishes: Wishes,
    settings: Settings,
    *,
    with_gpus: bool,
    fixed: frozenset[str] = frozenset(),
) -> Wishes:
    """The wishes, with what nobody fixed as in `settings`, except for what was `fixed` there."""
    changes: dict[str, Any] = {
        wish: getattr(settings, name)
        for wish, name in FROM_SETTINGS.items()
        if getattr(wishes, wish) is None
        and name not in fixed
        and (with_gpus or wish not in _ONLY_GPUS)
    }
    unified = settings.unified and "unified" not in fixed
    return replace(wishes, unified=wishes.unified or unified, **changes)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is known of a model on this machine. `tuned` is the result that a plan is to begin with,
    None without one; `others` are workloads that have one too. `findings` say what cannot be used.
    """

    tuned: StoredTune | None = None
    others: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def recalled(model: ModelSpec, identity: str, wishes: Wishes) -> Recalled:
    """Of what was found for this model on this machine, and can be believed, what fits the wishes
    best.

    Raises:
        MoestroError: there is no such engine as the wishes name.
    """
    paths = [Path(file.location) for file in model.files]
    if wishes.untuned or model.format != "gguf" or not all(path.is_file() for path in paths):
        return Recalled()
    try:
        found = stored(identity, paths)
    except MoestroError as error:  # whatever it is, there is a plan without it
        return Recalled(findings=(_left_out(error.sentence, error.hint),))
    results = by_fit(found.results, wishes)
    if wishes.engine is not None and results:
        # What one engine ran says little of another.
        engine = EMBEDDED if wishes.engine == EMBEDDED else _engine(wishes.engine)[0]
        results = [one for one in results if one.settings.engine == engine]
    reasons = []
    for one in results:
        why = _not_to_be_believed(one, paths)
        if why is None:
            others = tuple(other.workload for other in results if other is not one)
            return Recalled(one, others, found.findings)
        reasons.append(f"for {one.workload}: {why}")
    left_out = (_left_out(reasons[0]),) if reasons else ()
    return Recalled(findings=(*found.findings, *left_out))


def by_fit(results: Sequence[StoredTune], wishes: Wishes) -> list[StoredTune]:
    """What fits best first: by how often one would have to double the streams and lengths of its
    workload, or halve them, to have those that are wished for; those last whose user had fixed what
    this one leaves open. Workloads that fit alike stay in
    their order, and so do all of them where nothing is wished for: what a planner assumes in its
    place is nobody's wish."""

    own = fixed_settings(wishes)

    def misfit(one: StoredTune) -> tuple[bool, int, float]:
        too_long = one.prompt_tokens + one.output_tokens > (wishes.context or math.inf)
        pairs = (
            (wishes.parallel, one.streams),
            (wishes.prompt_tokens, one.prompt_tokens),
            (wishes.output_tokens, one.output_tokens),
        )
        doublings = sum(abs(math.log2(wish / max(had, 1))) for wish, had in pairs if wish)
        return too_long, len(one.fixed - own), doublings

    return sorted(results, key=misfit)


def _not_to_be_believed(tuned: StoredTune, paths: Sequence[Path]) -> str | None:
    try:
        return outdated(tuned, paths, _engine(tuned.settings.engine)[1])
    except MoestroError as error:  # its engine is gone
        return error.sentence


def _engine(name: str) -> tuple[str, str]:
    """Id and version of the engine that `name` means now."""
    from moestro.engine.registry import engine_named

    info = engine_named(name)
    return info.id, info.version


def _left_out(evidence: str, hint: str | None = None) -> Finding:
    return Finding(
        Severity.WARN,
        "tuned-left-out",
        "What moestro tune found for this model is left out",
        evidence,
        hint or _AGAIN,
    )


def fixed_settings(wishes: Wishes) -> frozenset[str]:
    """The names of the settings that the user decided."""
    names = {field.name for field in fields(Settings)}
    given = {
        field.name
        for field in fields(Wishes)
        if getattr(wishes, field.name) is not None
        and not (field.name == "unified" and not wishes.unified)
    }
    if "cache_type" in given:  # one wish for both
        given.add("cache_type_v")
    return frozenset({FROM_SETTINGS.get(name, name) for name in given} & names)


def explained(plan: Plan, found: StoredTune | TuneResult, wishes: Wishes) -> Plan:
    """The plan that was made with what was found, saying in its reasons so and for which workload;
    `wishes` are the user's own."""
    workload = found.workload
    fixed = fixed_settings(wishes)
    known = {
        reason.setting: replace(reason, because=f"{reason.because}; for {workload}")
        for reason in found.reasons
        if reason.setting not in fixed
        and getattr(plan.settings, reason.setting) == getattr(found.settings, reason.setting)
    }
    stayed = f"nothing tried was faster for {workload}"
    with_it = stayed if found_nothing(found) else f"measured with it for {workload}"
    reasons = tuple(
        known.pop(one.setting)
        if one.setting in known
        else replace(one, because=with_it, source="measured")
        if one.source == "user" and one.setting not in fixed
        else one
        for one in plan.reasons
    )
    return replace(plan, reasons=(*reasons, *known.values()))


def told_of(plan: Plan, found: Recalled, wishes: Wishes) -> Plan:
    """The plan that was made with what was recalled, saying so; `wishes` are the user's own."""
    tuned = found.tuned
    if tuned is None:
        return replace(plan, findings=(*plan.findings, *found.findings))
    plan = explained(plan, tuned, wishes)
    return replace(plan, findings=(*plan.findings, *found.findings, _used(tuned, found.others)))


def _used(tuned: StoredTune, others: tuple[str, ...]) -> Finding:
    title = "Settings are those that moestro tune found on this machine"
    if found_nothing(tuned):
        title = "moestro tune found nothing faster than these settings on this machine"
    said = [f"for {tuned.workload}: {tuned.prompt_tokens:,} tokens in, {tuned.output_tokens:,} out"]
    if tuned.gain is not None and not found_nothing(tuned):
        confirmed = "" if tuned.confirmed else " (not confirmed)"
        said.append(f"{tuned.gain.expected:.2f}× the plan's own settings{confirmed}")
    said.append(f"{tuned.tuned_at:%Y-%m-%d}")
    fix = "--untuned plans without them."
    if others:
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        said.append(f"kept too: {' / '.join(others[:_MOST_NAMED])}{more}")
        fix += " What fits --parallel and the lengths of prompt and answer best is taken."
    return Finding(Severity.INFO, "tuned", title, "; ".join(said), fix)


def misfitting(plan: Plan, tuned: StoredTune) -> Finding:
    """Why a plan that was made with `tuned`, and fails, is not used."""
    first = next(one for one in plan.findings if one.severity is Severity.FAIL)
    evidence = f"for {tuned.workload}: {first.title}"
    return _left_out(f"{evidence}: {first.evidence}" if first.evidence else evidence)
