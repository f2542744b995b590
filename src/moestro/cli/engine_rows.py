"""What `engines list` knows of each engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moestro.errors import MoestroError
from moestro.findings import Finding, Severity
from moestro.words import shown

if TYPE_CHECKING:
    from moestro.engine.registry import EngineInfo


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine. `seconds` and `size_bytes` are known of those that were built here. `model` is
    the name of a model that was asked about, `runs` whether the engine knows its architecture;
    None: only a try would tell."""

    info: EngineInfo
    seconds: float | None = None
    size_bytes: int | None = None
    model: str | None = None
    runs: bool | None = None

    def to_json(self) -> dict[str, Any]:
        said = {
            **self.info.to_json(),
            "build_seconds": self.seconds,
            "size_bytes": self.size_bytes,
        }
        return {**said, "runs": self.runs} if self.model is not None else said


def engine_rows(model: str | None) -> tuple[list[EngineRow], list[Finding]]:
    """Every engine here, and what is wrong with some.

    Raises:
        MoestroError: the model cannot be read.
    """
    from moestro.engine.build.record import read_records
    from moestro.engine.registry import asked, engines

    architecture = name = None
    if model is not None:
        name, architecture = _model(model)
    records, damaged = read_records()
    built = {record.id: record for record in records}
    rows, findings = [], list(damaged)
    for info in engines():
        record = built.get(info.id)
        seconds = size_bytes = None
        if record is not None:
            seconds, size_bytes = record.seconds, record.program.stat().st_size
        elif info.origin == "embedded":
            try:
                info = asked(info)
            except MoestroError as error:
                findings.append(_unusable(error))
        runs = info.runs(architecture) if architecture is not None else None
        rows.append(EngineRow(info, seconds, size_bytes, name, runs))
    return rows, findings


def _model(model: str) -> tuple[str, str]:
    from moestro.cli.resolve import resolve
    from moestro.model import read_model

    spec = read_model(resolve(model))
    return shown(spec.name or model, 40), spec.architecture


def _unusable(error: MoestroError) -> Finding:
    return Finding(
        Severity.FAIL, "engine-unusable", "The embedded engine cannot be used",
        error.sentence, error.hint,
    )  # fmt: skip
