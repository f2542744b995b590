"""Results that are kept on this machine, for each model and workload.

A result belongs to a file's content on one machine. The file is found by a sampled digest and
believed for the same lengths and times of change; anything else is said as a reason to tune again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from moestro.errors import NotAPlan
from moestro.findings import Finding, Severity
from moestro.hardware import store
from moestro.model.identity import sampled_digest
from moestro.planning.plan_file import legible, settings_from
from moestro.planning.settings import Reason, Settings, Source
from moestro.tune.depth import DepthCurve
from moestro.tune.result import TuneResult
from moestro.tune.statistics import Interval

TUNED = "tuned"
_KEPT = 16
_REASONS = 40
_TEXT = 400


@dataclass(frozen=True, slots=True)
class StoredTune:
    """What a search found. `workload` names what it was for, `engine_version` the engine that the
    settings ran on. `files`: path, bytes and time of change (ns) of each part."""

    tuned_at: datetime
    workload: str
    objective: str
    engine_version: str
    settings: Settings
    gain: Interval | None
    confirmed: bool
    complete: bool
    spent_seconds: float
    reasons: tuple[Reason, ...]
    files: tuple[tuple[str, int, int], ...]
    curve: DepthCurve | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "tuned_at": self.tuned_at.isoformat(timespec="seconds"),
            "workload": self.workload,
            "objective": self.objective,
            "engine_version": self.engine_version,
            "settings": self.settings.to_json(),
            "gain": None if self.gain is None else self.gain.to_json(),
            "confirmed": self.confirmed,
            "complete": self.complete,
            "spent_seconds": self.spent_seconds,
            "reasons": [reason.to_json() for reason in self.reasons],
            "files": [list(file) for file in self.files],
            "curve": None if self.curve is None else self.curve.to_json(),
        }

    @staticmethod
    def from_json(data: Any) -> StoredTune:
        """Raises LookupError, TypeError or ValueError: not what `to_json` writes."""
        return StoredTune(
            tuned_at=_time(data["tuned_at"]),
            workload=_text(data["workload"]),
            objective=_text(data["objective"]),
            engine_version=_text(data["engine_version"]),
            settings=settings_from(data["settings"]),
            gain=_interval(data["gain"]),
            confirmed=_flag(data["confirmed"]),
            complete=_flag(data["complete"]),
            spent_seconds=_positive(data["spent_seconds"]),
            reasons=tuple(_reason(reason) for reason in data["reasons"][:_REASONS]),
            files=tuple((str(path), int(size), int(ns)) for path, size, ns in data["files"]),
            curve=DepthCurve.from_json(data.get("curve")),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a model on a machine. `tuned` is None where nothing is. `stale` says in
    words why it should be looked at again; `findings` what could not be read."""

    tuned: StoredTune | None = None
    stale: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def keep(identity: str, paths: Sequence[Path], result: TuneResult) -> Path:
    """Keeps a result in place of the one for the same workload.

    Raises:
        HardwareError: there is no room, or no place to write.
        ModelError: a file is gone.
    """
    new = StoredTune(
        tuned_at=datetime.now(UTC),
        workload=result.workload,
        objective=result.objective,
        engine_version=result.engine_version,
        settings=result.settings,
        gain=result.gain,
        confirmed=result.confirmed,
        complete=result.complete,
        spent_seconds=result.spent_seconds,
        reasons=result.reasons,
        files=_files(paths),
        curve=result.curve,
    )

    def with_this(payload: Any) -> list[dict[str, Any]]:
        others = [one for one in _entries(payload)[0] if one.workload != new.workload]
        return [one.to_json() for one in (*others, new)[-_KEPT:]]

    return store.update(TUNED, _key(identity, paths), with_this)


def stored(
    identity: str,
    paths: Sequence[Path],
    *,
    workload: str | None = None,
    engine_versions: dict[str, str] | None = None,
) -> Found:
    """The last result for this workload; for None the last of any. `engine_versions` are those
    that engines have now, by id: a result of another version, or of an engine that is gone, is
    stale.

    Raises:
        ModelError: a file cannot be read.
    """
    kept = store.load(TUNED, _key(identity, paths))
    entries, strange = _entries(kept.payload)
    findings = [kept.finding] if kept.finding is not None else []
    if strange:
        findings.append(_damaged(strange))
    fitting = [one for one in entries if workload is None or one.workload == workload]
    if not fitting:
        return Found(findings=tuple(findings))
    tuned = max(fitting, key=lambda one: one.tuned_at)
    return Found(tuned, _stale(tuned, paths, engine_versions), tuple(findings))


def _stale(
    tuned: StoredTune, paths: Sequence[Path], versions: dict[str, str] | None
) -> tuple[str, ...]:
    found = []
    if {(size, ns) for _, size, ns in tuned.files} != {(s, ns) for _, s, ns in _files(paths)}:
        found.append("the model file was written anew since")
    if versions is not None:
        now = versions.get(tuned.settings.engine)
        if now is None:
            found.append(f"its engine, {tuned.settings.engine}, is not here any more")
        elif now != tuned.engine_version:
            found.append(f"its engine was {tuned.engine_version} and is {now} now")
    return tuple(found)


def _key(identity: str, paths: Sequence[Path]) -> str:
    both = f"{identity}\n{sampled_digest(paths)}"
    return hashlib.blake2b(both.encode(), digest_size=20).hexdigest()


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


def _damaged(count: int) -> Finding:
    return Finding(
        Severity.WARN,
        "tuned-unreadable",
        "A stored result of tuning cannot be read and is left out",
        f"{count} of them",
        "moestro tune writes a new one.",
    )


def _files(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for path in paths:
        status = path.stat()
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
    return Reason(_text(value["setting"]), _text(value["because"]), source)
