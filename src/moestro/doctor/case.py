"""What is examined: a machine, and mostly a model, a plan and a service on it. Facts only; how they
were found out is the caller's business, so that a test can state them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moestro.doctor.host import Host
from moestro.doctor.soak import SoakReport
from moestro.doctor.template.report import TemplateReport
from moestro.engine.facts import EngineFacts
from moestro.engine.tokenizer import TokenizerReport
from moestro.errors import MoestroError
from moestro.hardware import Inventory
from moestro.hardware.gpu_state import GpuState
from moestro.model import ModelSpec
from moestro.model.completeness import Completeness
from moestro.planning import Plan
from moestro.planning.plan_file import PlanFile
from moestro.verify.stored import StoredVerdict


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is to listen. `keys` tells whether callers need one; `meant_open`, that
    its user said that they do not."""

    host: str
    port: int
    keys: bool = False
    meant_open: bool = False


@dataclass(frozen=True, slots=True)
class ModelCase:
    """A model that could be read. `paths` are its files, empty while they are elsewhere.

    None means *not looked at*: the files are elsewhere, or a look was not asked for. An error
    instead of a report says why a look failed.
    """

    spec: ModelSpec
    paths: tuple[Path, ...] = ()
    completeness: Completeness | MoestroError | None = None
    template: TemplateReport | MoestroError | None = None
    tokenizer: TokenizerReport | MoestroError | None = None
    verdict: StoredVerdict | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """`engine` is None where it was not asked, `gpu_states` where nothing could tell how the GPUs
    fare now. `model_error` is why the model that was named could not be read; then `model` and
    `plan` are None. `plan_file` is what `plan` replays, where it was not made for this case.
    `address` is None where nothing is to be served, `soak` unless one was asked for."""

    host: Host
    inventory: Inventory
    engine: EngineFacts | MoestroError | None = None
    gpu_states: tuple[GpuState, ...] | None = None
    model: ModelCase | None = None
    model_error: MoestroError | None = None
    plan: Plan | None = None
    plan_file: PlanFile | None = None
    address: Address | None = None
    soak: SoakReport | None = None
