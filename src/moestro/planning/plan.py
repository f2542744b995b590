"""The plan: what will happen when this model runs on this machine, and the settings for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moestro.findings import Finding
from moestro.hardware import Inventory
from moestro.model import ModelSpec
from moestro.planning.alternatives import Alternative, alternatives, nearest
from moestro.planning.concerns import concerns
from moestro.planning.explain import reasons
from moestro.planning.forecaster import MtpGain, Speed, request_seconds
from moestro.planning.memory import Ledger
from moestro.planning.planner import Planner, Trial
from moestro.planning.settings import PlannedEngine, Reason, Settings
from moestro.planning.workload import Workload

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """`mtp` holds the expected gain of each draft depth; empty without an MTP layer.
    `speed_missing` names what a forecast would have needed, where there is none."""

    model: ModelSpec
    hardware: Inventory
    workload: Workload
    settings: Settings
    engine: PlannedEngine
    fits: bool | None
    ledger: Ledger
    speed: Speed | None
    mtp: tuple[MtpGain, ...]
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...]
    alternatives: tuple[Alternative, ...]
    speed_missing: tuple[str, ...] = ()

    @property
    def request_seconds(self) -> float | None:
        """One request of the workload alone: its prompt read, its answer written."""
        return None if self.speed is None else request_seconds(self.speed, self.workload)

    def to_json(self) -> dict[str, Any]:
        """The plan file. Sizes in bytes, rates in tokens per second; unknown is null."""
        return {
            "version": VERSION,
            "model": _model_json(self.model),
            "hardware": self.hardware.to_json(),
            "engine": self.engine.to_json(),
            "workload": self.workload.to_json(),
            "fits": self.fits,
            "memory": [device.to_json() for device in self.ledger.devices],
            "speed": self.speed.to_json() if self.speed is not None else None,
            "mtp": [gain.to_json() for gain in self.mtp],
            "settings": self.settings.to_json(),
            "reasons": [reason.to_json() for reason in self.reasons],
            "alternatives": [alternative.to_json() for alternative in self.alternatives],
            "findings": [finding.to_json() for finding in (*self.model.findings, *self.findings)],
        }


def make_plan(planner: Planner, *, with_alternatives: bool = True) -> Plan:
    """Decides, explains, and looks at the neighbours.

    Never raises for what does not fit or can't work: a finding of severity fail says so.
    """
    trial, streams = planner.decide()
    others = alternatives(planner, trial) if with_alternatives and trial.fits else ()
    would_fit = () if trial.fits else nearest(planner, trial)
    return Plan(
        model=planner.model,
        hardware=planner.machine,
        workload=trial.workload,
        settings=trial.settings,
        engine=planner.engine,
        fits=trial.verdict,
        ledger=trial.ledger,
        speed=trial.speed,
        mtp=_mtp(planner, trial),
        reasons=reasons(planner, trial, streams),
        findings=(*planner.machine.findings, *concerns(planner, trial, would_fit)),
        alternatives=others,
        speed_missing=() if trial.speed is not None else _missing(planner, trial),
    )


def replay(planner: Planner, settings: Settings, reasons: tuple[Reason, ...] = ()) -> Plan:
    """What becomes of `settings` as they stand, bounds and all, on the planner's machine today.

    Nothing is chosen and no neighbours are looked at. Never raises, as `make_plan`.
    """
    trial = planner.exactly(settings)
    return Plan(
        model=planner.model,
        hardware=planner.machine,
        workload=trial.workload,
        settings=settings,
        engine=planner.engine,
        fits=trial.verdict,
        ledger=trial.ledger,
        speed=trial.speed,
        mtp=_mtp(planner, trial),
        reasons=reasons,
        findings=(*planner.machine.findings, *concerns(planner, trial, None)),
        alternatives=(),
        speed_missing=() if trial.speed is not None else _missing(planner, trial),
    )


def _missing(planner: Planner, trial: Trial) -> tuple[str, ...]:
    return planner.forecaster.missing(trial.settings, trial.placement, trial.workload)


def _mtp(planner: Planner, trial: Trial) -> tuple[MtpGain, ...]:
    if not planner.model.mtp_layers:
        return ()
    return planner.forecaster.mtp_gains(trial.settings, trial.placement, trial.workload)


def _model_json(model: ModelSpec) -> dict[str, Any]:
    return {
        "name": model.name,
        "architecture": model.architecture,
        "quantization": model.quantization,
        "files": [
            {"location": file.location, "size_bytes": file.size_bytes} for file in model.files
        ],
        "tensor_bytes": model.tensor_bytes,
        "parameters": {"total": model.parameters, "active": model.parameters_active},
        "context_length": model.context_length,
        "block_count": model.block_count,
        "expert_blocks": list(model.expert_blocks),
        "mtp_layers": model.mtp_layers,
        "projector": model.projector.location if model.projector is not None else None,
    }
