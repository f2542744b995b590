"""Results that are kept on this machine, for each model and workload.

A result belongs to a file's content on one machine. What is kept is found by the lengths of the
files, which costs next to nothing where nothing was ever tuned; only then a sampled digest says
whether it is the same content. It is believed for the same times of change and the same version of
the engine; anything else is said as a reason to tune again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from moestro.errors import ModelError, NotAPlan
from moestro.findings import Finding, Severity
from moestro.hardware import store
from moestro.model.identity import sampled_digest
from moestro.planning.plan_file import legible, settings_from
from moestro.planning.settings import INT_MAX, Reason, Settings, Source
from moestro.tune.depth import DepthCurve
from moestro.tune.result import TuneResult
from moestro.tune.statistics import UNCHANGED, Interval

if TYPE_CHECKING:
    from moestro.tune.workload import Work

TUNED = "tuned"
_KEPT = 64
"""Results of all models whose files have the same lengths."""

_REASONS = 40
_SETTINGS = frozenset(field.name for field in fields(Settings))
_TEXT = 400


@dataclass(frozen=True, slots=True)
class StoredTune:
    """What a search found. `workload` names what it was for: `streams` users at once, each with
    requests of about `prompt_tokens` in and `output_tokens` out. `engine_version` is the engine's
    that the settings ran on. `fixed` are the settings that were the user's own choice and not the
    search's. `files`: path, bytes and time of change (ns) of each part; `digest`:
    a sampled one of their content."""

    tuned_at: datetime
    workload: str
    streams: int
    prompt_tokens: int
    output_tokens: int
    objective: str
    engine_version: str
    settings: Settings
    gain: Interval | None
    confirmed: bool
    complete: bool
    spent_seconds: float
    reasons: tuple[Reason, ...]
    files: tuple[tuple[str, int, int], ...]
    digest: str
    fixed: frozenset[str] = frozenset()
    curve: DepthCurve | None = None

    @property
    def subject(self) -> tuple[object, ...]:
        """Of which there is one result: a model, a workload, and what was fixed with it."""
        work = self.workload, self.streams, self.prompt_tokens, self.output_tokens
        fixed = frozenset((name, getattr(self.settings, name)) for name in self.fixed)
        return self.digest, *work, fixed

    def outweighs(self, new: StoredTune) -> bool:
        """Whether a later result of the same says less: a search that was broken off before it
        found anything, or that had no time to confirm what this one has confirmed."""
        if (
            self.engine_version != new.engine_version
            and self.settings.engine == new.settings.engine
        ):
            return False
        if found_nothing(self):
            return False
        return (found_nothing(new) and not new.complete) or (self.confirmed and not new.confirmed)

    def to_json(self) -> dict[str, Any]:
        return {
            "tuned_at": self.tuned_at.isoformat(timespec="seconds"),
            "workload": self.workload,
            "streams": self.streams,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "objective": self.objective,
            "engine_version": self.engine_version,
            "settings": self.settings.to_json(),
            "gain": None if self.gain is None else self.gain.to_json(),
            "confirmed": self.confirmed,
            "complete": self.complete,
            "spent_seconds": self.spent_seconds,
            "reasons": [reason.to_json() for reason in self.reasons],
            "files": [list(file) for file in self.files],
            "digest": self.digest,
            "fixed": sorted(self.fixed),
            "curve": None if self.curve is None else self.curve.to_json(),
        }

    @staticmethod
    def from_json(data: Any) -> StoredTune:
        """Raises LookupError, TypeError or ValueError: not what `to_json` writes."""
        return StoredTune(
            tuned_at=_time(data["tuned_at"]),
            workload=_text(data["workload"]),
            streams=_count(data["streams"]),
            prompt_tokens=_count(data["prompt_tokens"]),
            output_tokens=_count(data["output_tokens"]),
            objective=_text(data["objective"]),
            engine_version=_text(data["engine_version"]),
            settings=settings_from(data["settings"]),
            gain=_interval(data["gain"]),
            confirmed=_flag(data["confirmed"]),
            complete=_flag(data["complete"]),
            spent_seconds=_positive(data["spent_seconds"]),
            reasons=tuple(_reason(reason) for reason in data["reasons"][:_REASONS]),
            files=tuple((str(path), int(size), int(ns)) for path, size, ns in data["files"]),
            digest=_text(data["digest"]),
            fixed=frozenset(data["fixed"]) & _SETTINGS,
            curve=DepthCurve.from_json(data.get("curve")),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a model on a machine, a result for each workload, the last one first.
    `findings` say what could not be read."""

    results: tuple[StoredTune, ...] = ()
    findings: tuple[Finding, ...] = ()


def found_nothing(found: StoredTune | TuneResult) -> bool:
    """Whether the search was left with the settings that it began with."""
    return found.gain == UNCHANGED


def keep(
    identity: str,
    paths: Sequence[Path],
    work: Work,
    result: TuneResult,
    fixed: frozenset[str] = frozenset(),
) -> Path | None:
    """Keeps what a search found for `work`, with the settings named `fixed` as the user had them,
    in place of what an earlier one did. None where that says more, and stays.

    Raises:
        HardwareError: there is no room, or no place to write.
        ModelError: a file is gone.
    """
    new = StoredTune(
        tuned_at=datetime.now(UTC),
        workload=work.label,
        streams=work.streams,
        prompt_tokens=work.scenario.prompt_tokens,
        output_tokens=work.scenario.output_tokens,
        objective=result.objective,
        engine_version=result.engine_version,
        settings=result.settings,
        gain=result.gain,
        confirmed=result.confirmed,
        complete=result.complete,
        spent_seconds=result.spent_seconds,
        reasons=result.reasons,
        files=_files(paths),
        digest=sampled_digest(paths),
        fixed=fixed & _SETTINGS,
        curve=result.curve,
    )
    stays = False

    def with_this(payload: Any) -> list[dict[str, Any]]:
        nonlocal stays
        entries = _entries(payload)[0]
        stays = any(one.subject == new.subject and one.outweighs(new) for one in entries)
        if not stays:
            others = [one for one in entries if one.subject != new.subject]
            entries = (*others, new)[-_KEPT:]
        return [one.to_json() for one in entries]

    path = store.update(TUNED, _key(identity, new.files), with_this)
    return None if stays else path


def stored(identity: str, paths: Sequence[Path]) -> Found:
    """What is kept of the model in `paths`. Its content is only looked at where something is kept
    for files of these lengths.

    Raises:
        ModelError: a file cannot be read.
    """
    kept = store.load(TUNED, _key(identity, _files(paths)))
    entries, strange = _entries(kept.payload)
    findings = []
    if kept.finding is not None:
        findings.append(_unreadable(kept.finding.evidence))
    if strange:
        findings.append(_unreadable(f"{strange} of those for files of this size"))
    digest = sampled_digest(paths) if entries else None
    mine = tuple(one for one in reversed(entries) if one.digest == digest)
    return Found(mine, tuple(findings))


def outdated(tuned: StoredTune, paths: Sequence[Path], engine_version: str) -> str | None:
    """Why it should be looked at again, in words; `engine_version` is its engine's now.

    Raises:
        ModelError: a file is gone.
    """
    if {(size, ns) for _, size, ns in tuned.files} != {(s, ns) for _, s, ns in _files(paths)}:
        return "the model file was written anew since"
    if engine_version != tuned.engine_version:
        return f"its engine was {tuned.engine_version} and is {engine_version} now"
    return None


def _key(identity: str, files: Sequence[tuple[str, int, int]]) -> str:
    lengths = " ".join(str(size) for _, size, _ in files)
    return hashlib.blake2b(f"{identity}\n{lengths}".encode(), digest_size=20).hexdigest()


def _entries(payload: Any) -> tuple[tuple[StoredTune, ...], int]:
    """What can be read, and how many entries cannot."""
    if payload is None:
        return (), 0
    if not isinstance(payload, list):
        return (), 1
    found, strange = [], 0
    for entry in payload[-_KEPT:]:
        try:
            found.append(StoredTune.from_json(entry))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, NotAPlan):
            strange += 1
    return tuple(found), strange


def _unreadable(evidence: str | None) -> Finding:
    return Finding(
        Severity.WARN,
        "tuned-unreadable",
        "What moestro tune found cannot be read and is left out",
        evidence,
        "moestro tune measures it anew; --untuned plans without it.",
    )


def _files(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(
                f"{path} could not be read: {error.strerror or type(error).__name__}.",
                hint="Check the path, and that this user may read it.",
            ) from error
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(found)


def _time(value: Any) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT or not legible(value):
        raise ValueError("not a text that can be shown")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise ValueError(f"{value!r} is not a number of anything")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} is not true or false")
    return value


def _positive(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is not a number of seconds")
    return float(value)


def _interval(value: Any) -> Interval | None:
    if value is None:
        return None
    ends = [_positive(value[name]) for name in ("expected", "low", "high")]
    expected, low, high = ends
    if not 0 < low <= expected <= high:
        raise ValueError("a gain outside of its own range")
    return Interval(expected, low, high)


def _reason(value: Any) -> Reason:
    source = value["source"]
    if source not in get_args(Source):
        raise ValueError(f"{source!r} is no source")
    if value["setting"] not in _SETTINGS:
        raise ValueError(f"{value['setting']!r} is no setting")
    return Reason(value["setting"], _text(value["because"]), source)
