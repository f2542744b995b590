"""One verification from Python, and what of it is kept in a result file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cache import cache_folder
from moestro.errors import ModelError
from moestro.model import read_model
from moestro.planning.settings import Settings
from moestro.routing.interval import Interval
from moestro.verify.corpus import CHUNK_TOKENS, Passage
from moestro.verify.policy import built_in
from moestro.verify.recording import Recording, record
from moestro.verify.run import verify
from moestro.verify.subject import Options, Subject
from moestro.verify.verdict import Verification

ALARMS = ("warn", "fail", "unknown")


def subject(path: Path) -> Subject:
    """On all of this machine's processors, with the engine's defaults."""
    settings = Settings(context=CHUNK_TOKENS, parallel=1, threads=os.cpu_count() or 1)
    return Subject(read_model(path), settings)


def reference_file(name: str) -> Path:
    return cache_folder() / "references" / f"{name}.moeref"


def recorded(path: Path, name: str, passages: Sequence[Passage], options: Options) -> Path:
    """A `.moeref` of the model `path` in the benches' cache, called `name`; made once."""
    kept = reference_file(name)
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        record(subject(path), passages, kept, options)
    return kept


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate whose file cannot even be read: the command line says so in one sentence."""

    code: str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return {"severity": "fail", "code": self.code, "title": self.sentence}


def try_against(
    reference: Path, candidate: Path, passages: Sequence[Passage], options: Options
) -> Verification | Refused:
    """`against` for a candidate that may be damaged."""
    try:
        subject(candidate)
    except ModelError as error:
        return Refused(error.code, error.sentence)
    return against(reference, candidate, passages, options)


def against(
    reference: Path, candidate: Path, passages: Sequence[Passage], options: Options
) -> Verification:
    """`reference` is a model file or a `.moeref`."""
    if reference.suffix != ".moeref":
        return verify(subject(candidate), subject(reference), passages, built_in(), options)
    with Recording(reference) as recording:
        return verify(subject(candidate), recording, passages, built_in(), options)


def verdict(found: Verification | Refused) -> str:
    return "fail" if isinstance(found, Refused) else str(found.verdict)


def alarms(found: Verification | Refused) -> list[dict[str, Any]]:
    """Findings that keep a file from passing."""
    if isinstance(found, Refused):
        return [found.to_json()]
    return [finding.to_json() for finding in found.findings if finding.severity in ALARMS]


def figures(found: Verification | Refused) -> dict[str, Any]:
    """What limits may be held against, [value, low, high] where an interval is known; the worst
    layer's where there is one figure a layer."""
    if isinstance(found, Refused):
        return {}
    kept: dict[str, Any] = {"tokens": found.tokens}
    if (output := found.divergence) is not None:
        kept |= {
            "kld_mean": _three(output.kld_mean),
            "kld_median": output.kld_median,
            "kld_p99": output.kld_p99,
            "kld_max": output.kld_max,
            "top1_agreement": _three(output.top1_agreement),
            "perplexity": output.perplexity,
            "perplexity_reference": output.perplexity_reference,
            "perplexity_ratio": _three(output.perplexity_ratio),
            "not_finite": output.not_finite,
        }
    if (routing := found.routing) is not None:
        layers = routing.layers
        ratios = [x.effective_experts_ratio for x in layers if x.effective_experts_ratio]
        kept |= {
            "overlap": _three(routing.overlap),
            "overlap_clear": _three(routing.overlap_clear),
            "gate_mass_overlap": _three(routing.gate_mass_overlap),
            "router_kl": _three(routing.router_kl),
            "near_tie_share": routing.near_tie_share,
            "drift_by_depth": _three(routing.drift_by_depth),
            "worst_layer_overlap": _three(min((x.overlap for x in layers), key=_value)),
            "least_effective_ratio": _three(min(ratios, key=_value, default=None)),
            "greatest_load_shift": max(x.load_shift for x in layers),
            "greatest_max_load_ratio": max(x.max_load / x.max_load_reference for x in layers),
            "dead": sum(len(x.dead_only_in_candidate) for x in layers),
        }
    if found.repetition is not None:
        kept["repetition_excess"] = _three(found.repetition.excess)
    return kept


def rounded(value: Any) -> Any:
    """Six significant digits, everywhere in a structure: results are read by people too."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def _three(interval: Interval | None) -> list[float | None] | None:
    return [interval.value, interval.low, interval.high] if interval is not None else None


def _value(interval: Interval) -> float:
    return interval.value
