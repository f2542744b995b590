"""What still counts as good: limits on measured figures, from a TOML file with their sources."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from moestro.errors import UsageError
from moestro.findings import Severity

_MOST_BYTES = 1 << 20
_BEYOND_SENSE = 1e9
_KEYS = {"warn", "fail", "why", "source"}
_HINT = "docs/concepts/verify.md lists the limits and what a file of your own may set."


@dataclass(frozen=True, slots=True)
class Limit:
    """One figure's limits. `worse` says in which direction it gets worse; None switches a limit
    off. `why` and `source` say what it guards against and where the number comes from."""

    metric: str
    worse: Literal["above", "below"]
    warn: float | None
    fail: float | None
    code: str
    title: str
    why: str
    source: str
    fix: str

    def judge(self, value: float, low: float, high: float) -> Severity | None:
        """How bad a figure is that lies between `low` and `high` with 95 % confidence: only what is
        beyond a limit as a whole counts, so noise alone raises no alarm. A value beyond `fail` in
        an interval that says nothing is unknown: a longer text would tell."""
        nearest = low if self.worse == "above" else high
        if math.isnan(nearest) or math.isnan(value):
            return Severity.UNKNOWN
        if self._beyond(nearest, self.fail):
            return Severity.FAIL
        if self._beyond(nearest, self.warn):
            return Severity.WARN
        return Severity.UNKNOWN if self._beyond(value, self.fail) else None

    def _beyond(self, value: float, limit: float | None) -> bool:
        if limit is None:
            return False
        return value > limit if self.worse == "above" else value < limit


@dataclass(frozen=True, slots=True)
class Policy:
    """`name` is the file the limits come from; `limits` by metric, in the file's order."""

    name: str
    limits: Mapping[str, Limit]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "limits": {
                limit.metric: {"worse": limit.worse, "warn": limit.warn, "fail": limit.fail}
                for limit in self.limits.values()
            },
        }


def built_in() -> Policy:
    """The limits that come with moestro (`policy.toml`, where each says its source)."""
    text = files(__package__).joinpath("policy.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)["limits"]
    return Policy(
        "built in",
        {
            metric: Limit(
                metric,
                table["worse"],
                table.get("warn"),
                table.get("fail"),
                table["code"],
                table["title"],
                table["why"],
                table["source"],
                table["fix"],
            )
            for metric, table in tables.items()
        },
    )


def with_file(policy: Policy, path: Path) -> Policy:
    """`policy` with the limits that a file of the user's sets otherwise: tables
    `[limits.<metric>]` with `warn` and `fail`, each a number, or `false` for none.

    Raises:
        UsageError: it cannot be read, is no TOML, or names what does not exist.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UsageError(f"{path} is too large for a file of limits.", hint=_HINT)
        tables = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise UsageError(
            f"The limits in {path} could not be read: {error.strerror}.", hint=_HINT
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}.", hint=_HINT) from error
    unknown = set(tables) - {"limits"}
    own = tables.get("limits", {})
    if unknown or not isinstance(own, dict):
        raise UsageError(
            f"{path} may hold tables [limits.…] only, not {', '.join(sorted(unknown)) or 'this'}.",
            hint=_HINT,
        )
    limits = dict(policy.limits)
    for metric, table in own.items():
        limits[metric] = _overridden(limits.get(metric), metric, table, path)
    return Policy(path.name, limits)


def _overridden(limit: Limit | None, metric: str, table: object, path: Path) -> Limit:
    if limit is None:
        raise UsageError(f"{path} sets limits on “{metric}”, which is not measured.", hint=_HINT)
    if not isinstance(table, dict) or set(table) - _KEYS:
        raise UsageError(f"{path}: [limits.{metric}] may set warn and fail only.", hint=_HINT)
    changed: dict[str, float | None] = {}
    for name in ("warn", "fail"):
        value = table.get(name)
        if value is False:
            changed[name] = None
        elif isinstance(value, int | float) and value is not True and abs(value) < _BEYOND_SENSE:
            changed[name] = float(value)
        elif value is not None:
            raise UsageError(
                f"{path}: {name} of [limits.{metric}] must be a number, or false for none.",
                hint=_HINT,
            )
    own = {"source": f"set in {path.name}"} if changed else {}
    return replace(limit, **changed, **own)  # type: ignore[arg-type]
