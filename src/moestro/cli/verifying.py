"""From what the user named to a comparison: which files, which settings, what fits together."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from moestro.cli.launch import model_here
from moestro.cli.page import check_place
from moestro.cli.planning import planner_of, seen_by_engine
from moestro.cli.resolve import resolve
from moestro.errors import (
    ModelCorrupt,
    ModelError,
    ModelPartMissing,
    ModelTruncated,
    MoestroError,
    UsageError,
)
from moestro.findings import Finding, Severity
from moestro.hardware import Inventory, this_inventory
from moestro.model import ModelSpec
from moestro.planning import Plan, Wishes, make_plan
from moestro.planning.placement import HOST
from moestro.units import format_bytes
from moestro.verify import corpus
from moestro.verify.policy import Policy, built_in, with_file
from moestro.verify.recording import Recording, record
from moestro.verify.routing_record import routing_record
from moestro.verify.run import CANNOT_COMPARE, verify
from moestro.verify.sides import FIRST_SCORED
from moestro.verify.stored import keep_profile, keep_verdict
from moestro.verify.subject import Options, Progress, Subject
from moestro.verify.verdict import Compared, Verification

RECORDING_SUFFIX = ".moeref"
_LOGIT_BYTES = 4
_COPIES = 2
"""Of a chunk's logits: the engine's own, and those that both processes see."""

_RECORD = (
    "Record it on a larger machine (moestro verify REF --record FILE.moeref) and give that file."
)
_SMALLER = "Take a smaller file, or see moestro plan for what would fit."


def verified(
    model: str,
    reference: str,
    texts: Sequence[Path],
    policy_file: Path | None,
    given: dict[str, Any],
    progress: Progress,
) -> Verification:
    """Compares, and keeps the verdict.

    Raises:
        MoestroError: a file cannot be read, the reference cannot be run, or the text is too short.
    """
    policy = built_in() if policy_file is None else with_file(built_in(), policy_file)
    options, passages = options_of(given), passages_of(texts)
    machine = seen_by_engine(this_inventory())
    with ExitStack() as stack:
        if reference.lower().endswith(RECORDING_SUFFIX):
            if texts or given["tokens"] is not None:
                raise UsageError(
                    "A recorded reference brings its own text.",
                    hint="Leave --text and --tokens out, or record the reference anew with them.",
                )
            if "://" in reference or reference.startswith("hf:"):
                raise UsageError(
                    f"{reference} is not on this machine, and recordings are not fetched yet.",
                    hint="Download it, and give the path of the file.",
                )
            side: Subject | Recording = stack.enter_context(Recording(Path(reference)))
            theirs = None
        else:
            theirs = _planned(reference, machine, given, as_reference=True)
            side = _subject(theirs)
        try:
            ours = _planned(model, machine, given)
        except ModelError as error:
            return _unreadable(model, side, policy, error)
        if theirs is not None and not _fit_together(ours, theirs):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moestro-"))
            kept = Path(folder) / "reference.moeref"
            record(_subject(theirs), passages, kept, options, progress)
            side = stack.enter_context(Recording(kept))
        found = verify(_subject(ours), side, passages, policy, options, progress)
    return found if given["cache_type"] is not None else _kept(found, ours.model)


def recorded(
    model: str, path: Path, texts: Sequence[Path], given: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Runs `model` as a reference and keeps its results in the file `path`.

    Raises:
        MoestroError: it cannot be read or run, the text is too short, or the file cannot be
            written.
    """
    if path.suffix != RECORDING_SUFFIX:
        raise UsageError(
            f"A recorded reference is a {RECORDING_SUFFIX} file, which {path.name} is not.",
            hint=f"moestro verify {model} --record {path.with_suffix(RECORDING_SUFFIX)}",
        )
    check_place(path, what="recording", option="--record")
    passages, options = passages_of(texts), options_of(given)
    machine = seen_by_engine(this_inventory())
    plan = _planned(model, machine, given, as_reference=True)
    record(_subject(plan), passages, path, options, progress)
    with Recording(path) as kept:
        return {
            "path": str(path),
            "size_bytes": path.stat().st_size,
            "chunks": kept.chunks,
            "model": kept.compared.to_json(),
        }


def options_of(given: dict[str, Any]) -> Options:
    wanted = {name: given[name] for name in ("tokens", "generations") if given[name] is not None}
    return replace(Options(), **wanted)


def passages_of(texts: Sequence[Path]) -> tuple[corpus.Passage, ...]:
    """The built-in text, or the user's own.

    Raises:
        UsageError: a file is no text.
    """
    if not texts:
        return corpus.built_in()
    return tuple(passage for path in texts for passage in corpus.from_file(path))


def _planned(
    text: str, machine: Inventory, given: dict[str, Any], *, as_reference: bool = False
) -> Plan:
    """The model that `text` names, on `machine`, with room for one chunk of text.

    Raises:
        MoestroError: it cannot be read or fetched, or does not fit at all.
    """
    model = model_here(resolve(text), text)
    wishes = Wishes(
        context=corpus.CHUNK_TOKENS,
        parallel=1,
        mtp=0,
        threads=given["threads"],
        gpu_layers=given["gpu_layers"],
        cache_type=None if as_reference else given["cache_type"],
    )
    plan = _plan(model, machine, wishes)
    if plan.fits is False:
        hint, code = (_RECORD, "reference-does-not-fit") if as_reference else (_SMALLER, "no-fit")
        raise _does_not_fit(text, plan, hint, code)
    return plan


def _plan(model: ModelSpec, machine: Inventory, wishes: Wishes) -> Plan:
    with planner_of(model, machine, wishes) as planner:
        return make_plan(planner, with_alternatives=False)


def _fit_together(ours: Plan, theirs: Plan) -> bool:
    """Whether both models, with a chunk's logits each, have room at the same time; yes where the
    room is not known."""
    for device in ours.ledger.devices:
        if device.capacity_bytes is None:
            continue
        both = _resident_bytes(ours, device.device) + _resident_bytes(theirs, device.device)
        if device.device == HOST:
            both += _logits_bytes(ours.model) + _logits_bytes(theirs.model)
        if both > device.capacity_bytes:
            return False
    return True


def _resident_bytes(plan: Plan, name: str) -> int:
    """What the model takes of a device from the start; a prompt cache is not used here."""
    return sum(
        line.size_bytes
        for device in plan.ledger.devices
        if device.device == name
        for line in device.lines
        if line.resident
    )


def _logits_bytes(model: ModelSpec) -> int:
    rows = corpus.CHUNK_TOKENS - FIRST_SCORED
    return rows * (model.vocabulary or 0) * _LOGIT_BYTES * _COPIES


def _subject(plan: Plan) -> Subject:
    return Subject(plan.model, plan.settings)


def _does_not_fit(text: str, plan: Plan, hint: str, code: str) -> MoestroError:
    worst = max(
        (device for device in plan.ledger.devices if device.capacity_bytes is not None),
        key=lambda device: device.total_bytes - (device.capacity_bytes or 0),
    )
    place = "host memory" if worst.device == HOST else worst.device
    return MoestroError(
        f"{text} does not fit into this machine: it takes {format_bytes(worst.total_bytes)} of "
        f"{place}, which has {format_bytes(worst.capacity_bytes or 0)}.",
        hint=hint,
        code=code,
    )


def _unreadable(
    text: str, side: Subject | Recording, policy: Policy, error: ModelError
) -> Verification:
    """A candidate that cannot even be read has failed; whatever else is wrong is the user's to
    hear about as an error."""
    if not isinstance(error, ModelTruncated | ModelCorrupt | ModelPartMissing):
        raise error
    finding = Finding(Severity.FAIL, error.code, "The file is damaged", error.sentence, error.hint)
    reference = side.compared if isinstance(side, Recording) else side.compared(None)
    return Verification(
        Compared(Path(text).name, "unknown", None, None), reference, (finding,), policy
    )


def _kept(found: Verification, model: ModelSpec) -> Verification:
    """Keeps the verdict for `up`, if it is one of the file: not of a comparison that was broken
    off or could not be made, nor of a file with itself. A finding says why not, if it could not be
    kept."""
    codes = {finding.code for finding in found.findings}
    with_itself = found.candidate.digests == found.reference.digests
    if with_itself or codes & (CANNOT_COMPARE | {"interrupted", "reference-not-finite"}):
        return found
    try:
        keep_verdict(
            [Path(file.location) for file in model.files],
            found.verdict,
            reference=found.reference.name,
            policy=found.policy.name,
            tokens=found.tokens,
            digests=found.candidate.digests,
            findings=found.findings,
        )
        keep_profile([Path(file.location) for file in model.files], routing_record(found))
    except MoestroError as error:
        finding = Finding(
            Severity.INFO,
            "verdict-not-kept",
            "The verdict could not be kept; up will not know of it",
            error.sentence,
            error.hint,
        )
        return replace(found, findings=(*found.findings, finding))
    return found
