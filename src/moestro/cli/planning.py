"""Puts a planner together: the model's header, the machine's stored measurements, the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moestro.cli.resolve import resolve
from moestro.errors import EngineError, EngineMismatch
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory
from moestro.model import HubRef, ModelSpec, Reference, read_model
from moestro.model.what_if import bits_per_weight, resized, retyped, type_of_label
from moestro.planning import Plan, Planner, Wishes, make_plan
from moestro.planning.concerns import MEMORY_SHORT
from moestro.planning.forecaster import MachineSpeed
from moestro.planning.observed import Observation, Residuals, observations
from moestro.planning.pick import Option, pick
from moestro.planning.placement import block_count, gpu_capacities
from moestro.planning.rates import KernelRates
from moestro.planning.settings import EMBEDDED

if TYPE_CHECKING:
    from moestro.engine.llama_cpp.dry_run import DryRun
    from moestro.engine.llama_cpp.dry_run_process import DryRunProcess
    from moestro.engine.llama_cpp.virtual_device import VirtualDevice
    from moestro.engine.registry import EngineInfo
    from moestro.model.hub import Offer
    from moestro.planning.engine_memory import EngineMemory
    from moestro.planning.settings import PlannedEngine, Settings

_INSTALL_AGAIN = (
    "Run `make up` again after installing the GPU's driver: it takes the engine build for it."
)

RATES = "kernel-rates"
OBSERVATIONS = "observations"
"""Kinds of stored measurement; see `moestro.hardware.store`."""


@contextmanager
def planned(
    text: str,
    inventory: Inventory,
    wishes: Wishes,
    process: DryRunProcess | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Planner, Plan]]:
    """A plan for the model that `text` names, and its planner for further questions: the engine can
    be asked for as long as the context lasts. `process` is one that was started early; `meanwhile`
    is called once, while the engine thinks.

    Raises:
        MoestroError: the model cannot be read.
    """
    model = read_fitting(resolve(text), inventory, wishes)
    found = planned_model(
        model, inventory, wishes, process=process, meanwhile=meanwhile, with_alternatives=True
    )
    with found as (planner, plan):
        yield planner, plan


@contextmanager
def planned_model(
    model: ModelSpec,
    inventory: Inventory,
    wishes: Wishes,
    identity: str | None = None,
    *,
    process: DryRunProcess | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    with_alternatives: bool = False,
) -> Iterator[tuple[Planner, Plan]]:
    """A plan for a model whose header was read, and its planner: with what `tune` found, where that
    fits what is wished for, else without.

    Raises:
        MoestroError: there is no such engine as the wishes name.
    """
    from moestro.cli.recall import Recalled, completed, misfitting, recalled, told_of

    here = inventory.source == "this machine"
    known = recalled(model, identity or inventory.identity, wishes) if here else Recalled()
    if known.tuned is not None:
        tuned = known.tuned
        full = completed(wishes, tuned.settings, with_gpus=bool(inventory.gpus), fixed=tuned.fixed)
        with planner_of(model, inventory, full, identity, process, meanwhile) as planner:
            plan = told(make_plan(planner, with_alternatives=with_alternatives), planner)
            if not any(finding.severity is Severity.FAIL for finding in plan.findings):
                yield planner, told_of(plan, known, wishes)
                return
        known = Recalled(findings=(*known.findings, misfitting(plan, known.tuned)))
        process = None  # it has ended with this planner
    with planner_of(model, inventory, wishes, identity, process, meanwhile) as planner:
        plan = told(make_plan(planner, with_alternatives=with_alternatives), planner)
        yield planner, told_of(plan, known, wishes)


def plan_of(text: str, inventory: Inventory, wishes: Wishes) -> Plan:
    """A plan for the model that `text` names, without a look at alternatives."""
    model = read_fitting(resolve(text), inventory, wishes)
    with planned_model(model, inventory, wishes) as (_, plan):
        return plan


@contextmanager
def planner_of(
    model: ModelSpec,
    inventory: Inventory,
    wishes: Wishes,
    identity: str | None = None,
    process: DryRunProcess | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    engine_name: str | None = None,
) -> Iterator[Planner]:
    """A planner that may ask the engine, where the engine can read the model's header. `identity`
    is the machine's, where `inventory` leaves out a part of it; `engine_name` the engine's, where
    the wishes do not have it.

    Raises:
        MoestroError: there is no such engine.
    """
    forecaster = forecaster_for(model, inventory, identity)
    info = engine_of(engine_name or wishes.engine)
    engine = info.planned if info is not None else _embedded()
    if model.format != "gguf":
        yield Planner(model, inventory, wishes, forecaster, engine=engine)
        return
    if info is not None and info.family != "llama.cpp":
        # The dry run is llama.cpp's own; another engine's memory is by formula.
        yield Planner(model, inventory, wishes, forecaster, None, engine)
        return
    from moestro.engine.llama_cpp.dry_run import DryRun

    with DryRun(model, virtual_gpus(inventory), process=process) as dry_run:
        question = EngineQuestion(dry_run, meanwhile)
        yield Planner(model, inventory, wishes, forecaster, question, engine)


def told(plan: Plan, planner: Planner) -> Plan:
    """The plan with a finding where the engine refused to answer: its memory is by formula then,
    and the engine will most likely refuse to run the model too. Settings that contradict each other
    have their own finding, which names the cause."""
    if any(f.severity is Severity.FAIL and f.code != MEMORY_SHORT for f in plan.findings):
        return plan
    question = planner.ask_engine
    refusal = question.refusal if isinstance(question, EngineQuestion) else None
    severity = Severity.WARN if isinstance(refusal, EngineMismatch) else Severity.FAIL
    title = "The engine refuses this model or these settings; memory is by formula"
    if plan.engine.id != EMBEDDED:
        info = engine_of(plan.settings.engine)
        own = refusal_of(info, plan.model, plan.settings) if info is not None else None
        if own is not None:
            refusal, severity = own, Severity.FAIL
            title = "The engine refuses this model or these settings"
        elif refusal is not None:
            severity = Severity.WARN
            title = (
                "The embedded engine, which was asked in its place, refuses; memory is by formula"
            )
    if refusal is None:
        return plan
    finding = Finding(severity, "engine-refuses", title, refusal.sentence, refusal.hint)
    return replace(plan, findings=(*plan.findings, finding))


def _embedded() -> PlannedEngine | None:
    from moestro.engine.registry import embedded

    try:
        return embedded().planned
    except EngineError:  # its dry run says so
        return None


def engine_of(name: str | None) -> EngineInfo | None:
    """The engine of that name; None for the embedded one, which needs no looking for.

    Raises:
        MoestroError: there is none, or it is no engine.
    """
    if name in (None, EMBEDDED):
        return None
    from moestro.engine.registry import engine_named

    return engine_named(name)


def refusal_of(info: EngineInfo, model: ModelSpec, settings: Settings) -> EngineError | None:
    """Why that engine would not run the model with these settings, as far as that can be known
    without a try."""
    from moestro.engine.llama_server.engine import setting_flags

    if model.format == "gguf" and info.runs(model.architecture) is False:
        return EngineError(
            f"{info.id} does not know models of the architecture {model.architecture}.",
            hint="moestro engines list --for MODEL shows which engine does.",
        )
    try:
        setting_flags(info, model, settings)
    except EngineError as error:
        return error
    return None


def virtual_gpus(inventory: Inventory) -> tuple[VirtualDevice, ...]:
    """The machine's GPUs for the engine's dry run, present or not."""
    from moestro.engine.llama_cpp.virtual_device import VirtualDevice

    return tuple(
        VirtualDevice(gpu.name, gpu.memory_bytes or free_bytes, free_bytes)
        for gpu, free_bytes in zip(inventory.gpus, gpu_capacities(inventory), strict=True)
    )


class EngineQuestion:
    """Asks the engine, and takes a refusal for no answer: `refusal` then says why. `meanwhile` is
    called while it thinks for the first time."""

    def __init__(self, engine: DryRun, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._meanwhile = meanwhile
        self.refusal: EngineError | None = None

    def __call__(self, settings: Settings) -> EngineMemory | None:
        if self.refusal is not None:
            return None
        try:
            meanwhile, self._meanwhile = self._meanwhile, lambda: None
            return self._engine.memory(settings, meanwhile=meanwhile)
        except EngineError as error:
            self.refusal = error
            return None


def forecaster_for(
    model: ModelSpec, inventory: Inventory, identity: str | None = None
) -> MachineSpeed:
    """With what was measured on this machine, if it is this one."""
    if inventory.source != "this machine":
        return MachineSpeed(model, inventory)
    from moestro.hardware.store import load

    identity = identity or inventory.identity
    runs = observations(load(OBSERVATIONS, identity).payload)
    return MachineSpeed(model, inventory, stored_rates(identity), Residuals.of(runs))


def stored_rates(identity: str) -> dict[str, KernelRates]:
    """Rates of this machine's devices, as far as they were measured with this engine; what another
    version wrote is measured anew with the next `hardware --measure`."""
    from moestro.engine.llama_cpp.version import EXPECTED_VERSION
    from moestro.hardware.store import load

    stored = load(RATES, identity).payload
    try:
        rates = {name: KernelRates.from_json(entry) for name, entry in (stored or {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {
        name: found for name, found in rates.items() if found.engine_version == EXPECTED_VERSION
    }


def read_fitting(reference: Reference, inventory: Inventory, wishes: Wishes) -> ModelSpec:
    """The header of the model that `fitting_reference` settles on.

    Raises:
        MoestroError: see `moestro.model.read_model`.
    """
    reference, chosen = fitting_reference(reference, inventory, wishes)
    model = read_model(reference)
    if chosen is not None:
        model = replace(model, findings=(*model.findings, chosen))
    return model


def fitting_reference(
    reference: Reference, inventory: Inventory, wishes: Wishes
) -> tuple[Reference, Finding | None]:
    """Of a repository named without a quantization, the file that fits the machine best, and a
    finding that says why; any other reference as it is.

    Raises:
        MoestroError: see `moestro.model.read_model`.
    """
    if not isinstance(reference, HubRef) or reference.quant is not None:
        return reference, None
    from moestro.model.hub import list_files

    kinds = {
        offer: kind
        for offer in list_files(reference.repository).offers()
        if (kind := type_of_label(offer.label or "")) is not None
    }
    if len(kinds) < 2:
        return reference, None
    usual = read_model(reference)
    options = {
        offer: _option(resized(retyped(usual, kind), offer.size_bytes), offer, inventory, wishes)
        for offer, kind in kinds.items()
    }
    taken = pick(tuple(options.values()))
    if taken is None:
        return reference, None
    option, because = taken
    offer = next(offer for offer, other in options.items() if other is option)
    finding = Finding(
        Severity.INFO,
        "file-chosen",
        f"{offer.label} was chosen of {len(kinds)} files that differ in size",
        f"{offer.path}: {because}",
        f"Name another one like hf:{reference.repository}:Q8_0.",
    )
    return HubRef(reference.repository, offer.path), finding


def _option(model: ModelSpec, offer: Offer, inventory: Inventory, wishes: Wishes) -> Option:
    planner = Planner(model, inventory, wishes, forecaster_for(model, inventory))
    trial, _ = planner.decide()
    settings = trial.settings
    on_gpus = bool(inventory.gpus) and (
        (settings.gpu_layers or 0) > block_count(model) and not settings.cpu_expert_layers
    )
    bits = bits_per_weight(model.tensor_bytes, model.parameters)
    return Option(
        offer.label or offer.path,
        offer.size_bytes,
        bits,
        trial.fits,
        on_gpus,
        trial.request_seconds,
    )


def seen_by_engine(machine: Inventory, engine: str | None = None) -> Inventory:
    """This machine as the engine (of that name, or the embedded one) sees it: without GPUs where
    its build has no use for them.

    Raises:
        MoestroError: there is no such engine.
    """
    if not machine.gpus:
        return machine
    info = engine_of(engine)
    if info is not None:
        uses, fix = bool(info.devices), "Take a build of it for this GPU: moestro engines build."
    else:
        from moestro.engine.llama_cpp.devices import engine_gpu_count

        uses, fix = engine_gpu_count() > 0, _INSTALL_AGAIN
    if uses:
        return machine
    finding = Finding(
        Severity.WARN,
        "engine-without-gpu",
        "The engine that is installed has no use for this machine's GPU",
        ", ".join(gpu.name for gpu in machine.gpus),
        fix,
    )
    return replace(machine, gpus=(), findings=(*machine.findings, finding))


def charted(planner: Planner, plan: Plan, path: Path) -> None:
    """Writes the page of `plan --chart`."""
    from moestro.cli.chart import write_chart
    from moestro.planning.frontier import frontier

    points = list(frontier(planner, plan.settings))
    write_chart(plan, points, path)


def remember(identity: str, run: Observation) -> Finding | None:
    """Stores what a run showed; a finding says why not, if it could not."""
    from moestro.errors import MoestroError
    from moestro.hardware.store import update
    from moestro.planning.observed import KEPT

    def with_this(stored: object) -> list[dict[str, object]]:
        return [one.to_json() for one in (*observations(stored), run)[-KEPT:]]

    try:
        update(OBSERVATIONS, identity, with_this)
    except MoestroError as error:
        return Finding(
            Severity.WARN,
            "observation-not-kept",
            "What this run showed could not be kept",
            error.sentence,
            error.hint,
        )
    return None
