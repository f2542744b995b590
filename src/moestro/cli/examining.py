"""Gathers what the doctor looks at, and has it looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from moestro.cli.beside import begin
from moestro.cli.launch import Prepared
from moestro.cli.planning import planner_of, seen_by_engine, told
from moestro.cli.resolve import resolve
from moestro.doctor.case import Address, Case, ModelCase
from moestro.doctor.checks import CHECKS, soak
from moestro.doctor.examine import Answer, examine
from moestro.doctor.host import this_host
from moestro.doctor.soak import SoakReport
from moestro.doctor.template.stopper import Stopper
from moestro.engine.facts import EngineFacts
from moestro.errors import ModelError, ModelNotFound, MoestroError
from moestro.findings import Finding
from moestro.hardware import Inventory, this_inventory
from moestro.hardware.gpu_state import read_gpu_states
from moestro.model import Folder, LocalFile, ModelSpec, read_model
from moestro.planning import Wishes, make_plan
from moestro.planning.plan import replay
from moestro.planning.plan_file import PlanFile
from moestro.units import format_bytes
from moestro.verify.stored import verdict_of

HASHED_AT_ONCE_BYTES = 2 << 30
HASHED_AT_ONCE_SECONDS = 3.0
"""Whichever is reached first; more only with `--full`."""

_EVERYTHING = 1 << 62
Result = TypeVar("Result")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for. `model` None looks at the machine alone; `soak_seconds` None asks
    for no load."""

    model: str | None
    plan_path: Path | None
    wishes: Wishes
    address: Address
    full: bool = False
    soak_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """`seconds` it took, the soak left out."""

    case: Case
    answers: tuple[Answer, ...]
    seconds: float

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for answer in self.answers for finding in answer.findings)


def examined(wanted: Wanted, tell: Tell) -> Examined:
    """Every check on this machine. `tell` hears what is being done.

    Raises:
        MoestroError: there is no such model, or no such plan.
    """
    begun = time.monotonic()
    plan_file = None if wanted.plan_path is None else PlanFile.read(wanted.plan_path)
    text = wanted.model
    if text is None and plan_file is not None:
        text = plan_file.model.files[0]
    whole = this_inventory()
    engine, states = begin(_engine_facts), begin(partial(read_gpu_states, whole))
    model, model_error, prepared = None, None, None
    if text is not None:
        tell(f"looking at {text}")
        spec, model_error = _read(text)
        if spec is not None:
            stopper = Stopper()
            looking = _look_at(spec, wanted.full, tell, stopper)
            try:
                prepared = _planned(spec, whole, wanted.wishes, plan_file)
                model = looking()
            except BaseException:  # Ctrl-C above all: nothing may go on behind the user's back
                stopper.stop()
                raise
    case = Case(
        host=this_host(),
        inventory=whole,
        engine=engine(),
        gpu_states=states(),
        model=model,
        model_error=model_error,
        plan=prepared.plan if prepared is not None else None,
        plan_file=plan_file,
        address=wanted.address,
    )
    answers = examine(case, CHECKS, lambda check: tell(check.question))
    seconds = time.monotonic() - begun
    if wanted.soak_seconds is not None and prepared is not None:
        # Last, because a machine under this load would be called busy and warm.
        case = replace(case, soak=_soaked(wanted.soak_seconds, prepared, tell))
        (answer,) = examine(case, [soak.CHECK])
        answers = tuple(answer if one.check is soak.CHECK else one for one in answers)
    return Examined(case, answers, seconds)


def to_json(found: Examined) -> dict[str, Any]:
    """Every finding with the check that made it."""
    return {
        "findings": [
            {**finding.to_json(), "check": answer.check.name, "area": answer.check.area}
            for answer in found.answers
            for finding in answer.findings
        ],
        "seconds": round(found.seconds, 2),
    }


def _engine_facts() -> EngineFacts | MoestroError:
    from moestro.engine.llama_cpp.facts import engine_facts

    return _or_error(engine_facts)


def _read(text: str) -> tuple[ModelSpec | None, MoestroError | None]:
    """Raises MoestroError where there is nothing of that name to look at."""
    reference = resolve(text)
    try:
        return read_model(reference), None
    except ModelError as error:
        is_there = isinstance(reference, LocalFile | Folder) and reference.path.exists()
        if isinstance(error, ModelNotFound) and not is_there:
            raise
        return None, error


def _look_at(spec: ModelSpec, full: bool, tell: Tell, stopper: Stopper) -> Callable[[], ModelCase]:
    """Begins to look at a model's files, template and tokenizer; the result waits for the end."""
    from moestro.doctor.template.text_reports import look_at_text
    from moestro.model.completeness import look_at_files

    paths = tuple(Path(file.location) for file in spec.files)
    here = all(path.is_file() for path in paths)
    limit = _EVERYTHING if full else HASHED_AT_ONCE_BYTES

    def progress(done_bytes: int) -> None:
        tell(f"computing the files' SHA-256: {format_bytes(done_bytes)}")

    looked = partial(
        look_at_files,
        spec,
        hash_up_to_bytes=limit,
        hash_up_to_seconds=None if full else HASHED_AT_ONCE_SECONDS,
        progress=progress,
    )
    files = begin(partial(_or_error, looked)) if here else None
    verdict = begin(partial(_or_error, partial(verdict_of, paths))) if here else None
    words = begin(partial(look_at_text, spec, stopper))

    def result() -> ModelCase:
        stored = None if verdict is None else verdict()
        return ModelCase(
            spec=spec,
            paths=paths if here else (),
            completeness=None if files is None else files(),
            template=words().template,
            tokenizer=words().tokenizer,
            verdict=None if isinstance(stored, MoestroError) else stored,
        )

    return result


def _planned(
    spec: ModelSpec,
    whole: Inventory,
    wishes: Wishes,
    plan_file: PlanFile | None,
) -> Prepared:
    engine = wishes.engine if plan_file is None else plan_file.engine.id
    machine = seen_by_engine(whole, engine)
    with planner_of(spec, machine, wishes, whole.identity, engine_name=engine) as planner:
        if plan_file is not None:
            plan = replay(planner, plan_file.settings, plan_file.reasons)
        else:
            plan = make_plan(planner, with_alternatives=False)
        return Prepared(Path(spec.files[0].location), whole.identity, told(plan, planner), planner)


def _soaked(seconds: float, prepared: Prepared, tell: Tell) -> SoakReport:
    from moestro.cli.soaking import soaked

    def progress(done: float) -> None:
        tell(f"under load: {done:.0f} of {seconds:.0f} s")

    return soaked(prepared, seconds, progress)


def _or_error(ask: Callable[[], Result]) -> Result | MoestroError:
    try:
        return ask()
    except MoestroError as error:
        return error
