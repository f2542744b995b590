"""From what the user named to an engine behind an endpoint. Used by `up`, `run` and `chat`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from moestro.cli.planning import (
    fitting_reference,
    planned_model,
    planner_of,
    seen_by_engine,
    told,
)
from moestro.cli.quick_checks import with_quick_checks
from moestro.cli.resolve import resolve
from moestro.doctor.case import Address
from moestro.engine import EngineRequest
from moestro.errors import ModelUnsupported, MoestroError
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory, this_inventory
from moestro.model import HubRef, ModelSpec, Reference, Url, read_model
from moestro.model.splits import model_name
from moestro.planning import Plan, Planner, Wishes
from moestro.planning.plan import replay
from moestro.planning.plan_file import PlanFile
from moestro.verify.stored import StoredVerdict, verdict_of
from moestro.words import shown


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model on this machine, looked at and planned, but not started. `identity` is the machine's
    own, whatever part of it the engine has no use for."""

    path: Path
    identity: str
    plan: Plan
    planner: Planner

    @property
    def model(self) -> ModelSpec:
        return self.plan.model

    @property
    def findings(self) -> tuple[Finding, ...]:
        return (*self.model.findings, *self.plan.findings)

    @property
    def name(self) -> str:
        """What clients call the model."""
        return model_name(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that an engine reads: the model's parts and its projector."""
        projector = self.model.projector
        beside = [Path(projector.location)] if projector and projector.location else []
        return (self.path, *(Path(file.location) for file in self.model.files), *beside)

    def request(self, *, embeddings: bool = False, thinking: bool | None = None) -> EngineRequest:
        projector = self.model.projector
        beside = Path(projector.location) if projector and projector.location else None
        return EngineRequest(
            self.path,
            self.name,
            self.plan.settings,
            beside,
            embeddings=embeddings,
            thinking=thinking,
        )


def prepare(
    text: str, wishes: Wishes, *, anyway: bool = False, address: Address | None = None
) -> Prepared:
    """Reads the model that `text` names, fetches it if it is elsewhere, plans it, and runs the
    doctor's quick checks. `address` is where others will reach it, None if nobody will.

    A model that cannot run here is refused from its header, before its download.

    Raises:
        MoestroError: it cannot be read or fetched, or a finding of severity fail speaks against it
            and `anyway` is not given.
    """
    whole = this_inventory()
    machine = seen_by_engine(whole, wishes.engine)
    reference, chosen = fitting_reference(resolve(text), machine, wishes)

    def look(at: Reference) -> Prepared:
        found = _prepared(at, text, machine, whole.identity, wishes, chosen)
        plan = with_quick_checks(found.plan, machine, stored_verdict(found.model), address)
        if not anyway:
            refuse_failures((*found.model.findings, *plan.findings))
        return replace(found, plan=plan)

    prepared = look(reference)
    here = _brought_here(reference, prepared.model, text)
    return prepared if here is reference else look(here)


def _prepared(
    reference: Reference,
    text: str,
    machine: Inventory,
    identity: str,
    wishes: Wishes,
    chosen: Finding | None,
) -> Prepared:
    model = read_model(reference)
    require_gguf(model, text)
    if chosen is not None:
        model = replace(model, findings=(*model.findings, chosen))
    path = Path(model.files[0].location)
    with planned_model(model, machine, wishes, identity) as (planner, plan):
        return Prepared(path, identity, plan, planner)


def prepare_plan(path: Path, *, anyway: bool = False, address: Address | None = None) -> Prepared:
    """The plan in a file, for this machine: its settings as they stand.

    Raises:
        MoestroError: it is no plan, its model is not here, or a finding of severity fail speaks
            against it and `anyway` is not given.
    """
    plan_file = PlanFile.read(path)
    text, engine = plan_file.model.files[0], plan_file.engine.id
    whole = this_inventory()
    machine = seen_by_engine(whole, engine)
    model = model_here(resolve(text), text)
    with planner_of(model, machine, Wishes(), whole.identity, engine_name=engine) as planner:
        plan = told(replay(planner, plan_file.settings, plan_file.reasons), planner)
        plan = with_quick_checks(plan, machine, stored_verdict(model), address)
        if not anyway:
            refuse_failures((*model.findings, *plan.findings))
        return Prepared(Path(model.files[0].location), whole.identity, plan, planner)


def model_here(reference: Reference, text: str) -> ModelSpec:
    """The model, named by `text`, as it lies on this machine, fetched if it is elsewhere.

    Raises:
        MoestroError: it cannot be read or fetched, or it is none for the engine here.
    """
    model = read_model(reference)
    require_gguf(model, text)
    here = _brought_here(reference, model, text)
    return model if here is reference else read_model(here)


def _brought_here(reference: Reference, model: ModelSpec, text: str) -> Reference:
    if not isinstance(reference, HubRef | Url):
        return reference
    from moestro.cli.fetching import fetch_with_progress

    return resolve(str(fetch_with_progress(reference, model.name or text)))


def require_gguf(model: ModelSpec, text: str) -> None:
    """Raises ModelUnsupported for what `text` names, if the engine here cannot run such files."""
    if model.format != "gguf":
        raise ModelUnsupported(
            f"{text} holds safetensors; the engine here runs GGUF files.",
            hint="Convert it with llama.cpp's convert_hf_to_gguf.py, or take a GGUF of the model.",
        )


def stored_verdict(model: ModelSpec) -> StoredVerdict | None:
    """What `moestro verify` last said of this file; None too while it is on a server."""
    paths = [Path(file.location) for file in model.files]
    if not all(path.is_file() for path in paths):
        return None
    return verdict_of(paths, _Notice(model.name or paths[0].name))


class _Notice:
    """Says once, on stderr, that a file has to be read whole before it can be served."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def __call__(self, _done_bytes: int) -> None:
        if self._name is not None:
            print(
                f"reading {shown(self._name)}: one like it has failed moestro verify",
                file=sys.stderr,
                flush=True,
            )
            self._name = None


IMPOSSIBLE = frozenset({"too-many-streams"})
"""What no engine starts with."""


def refuse_failures(findings: tuple[Finding, ...]) -> None:
    """Raises the first finding of severity fail as an error."""
    failed = [finding for finding in findings if finding.severity is Severity.FAIL]
    if not failed:
        return
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    evidence = f": {first.evidence}" if first.evidence else ""
    hint = first.fix or "See moestro plan."
    if first.code not in IMPOSSIBLE:
        hint += " --anyway starts all the same."
    raise MoestroError(
        f"{first.title}{evidence}{more}.",
        hint=hint,
        code=first.code,
    )


ReadLog = Callable[[int], tuple[str, ...]]


@asynccontextmanager
async def launched(prepared: Prepared) -> AsyncIterator[tuple[str, str, ReadLog]]:
    """A model behind an endpoint on a free port for as long as the context lasts; yields its URL,
    its key, and what reads the engine's last lines. Where it drafts, they tell how that went.

    Raises:
        EngineError: the engine did not come up.
    """
    from moestro.engine.start import make_engine
    from moestro.gateway.access import Access
    from moestro.gateway.app import Front
    from moestro.gateway.keys import new_secret
    from moestro.gateway.server import bind, serving
    from moestro.gateway.service import Service

    key = new_secret()
    listener = bind(port=0)
    request = prepared.request()
    request = replace(request, verbose=bool(request.settings.drafts))
    service = Service(make_engine, request)

    def read_log(lines: int) -> tuple[str, ...]:
        return service.engine.log_tail(lines) if service.engine is not None else ()

    async with serving(service, listener, Front(access=Access.private(key))) as url:
        yield url, key, read_log
