"""Weights against the reference's: bad values, routers, experts, and everything else. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from moestro.engine.llama_cpp.row_samples import is_router
from moestro.findings import Finding, Severity
from moestro.verify.fingerprint import Fingerprint, TensorPrint
from moestro.verify.static_experts import LayerExperts, has_units_of_experts, layers_of_experts
from moestro.verify.static_tensors import HEAD, TABLE
from moestro.verify.unit_errors import (
    Floats,
    comparable,
    expected_error,
    is_vector,
    row_cosines,
    said_of_cosines,
    tensor_limit,
    unit_errors,
    unit_limit,
)
from moestro.words import shown

ROUTER_FAIL_COSINE = 0.999
"""Rows rounded to 4 bits are at 0.995 on the average; one file with such rows, 152 of 256 below
0.99, routed to a few experts only and repeated itself."""
ROUTER_FAIL_ERROR = 0.05
SMALL_ERROR = 0.05
"""Differences up to here are what one more round of training or rounding does, not damage."""
MOST_COUNTED = 10.0
"""Times its size: a unit that is further off, or gone, does not make the mean any larger."""

_AGAIN = "Download or quantize the file again, and compare its hash with the source's."
_SCALED = re.compile(r"\.weight$")
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Difference:
    """A tensor that differs by more than its types explain: in `units` of its units, at most by
    `error` times their size. `mean` is the root mean square over all units."""

    tensor: TensorPrint
    units: int
    worst: int
    error: float
    mean: float
    expected: float
    cosines: Floats | None = None


def values_findings(reference: Fingerprint, candidate: Fingerprint) -> list[Finding]:
    layers = layers_of_experts(reference, candidate)
    renumbered = {layer.layer for layer in layers if layer.renumbered}
    damaged = [layer for layer in layers if not layer.renumbered]
    explained = {name for layer in damaged for name in layer.tensors}
    routers: list[Difference] = []
    others: list[Difference] = []
    for before, now in _pairs(reference, candidate):
        of_layer = has_units_of_experts(now) or is_router(now.name)
        if of_layer and (now.layer in renumbered or now.name in explained):
            continue
        difference = _difference(before, now, free_scale=_is_scaled(before, now, reference,
                                                                    candidate))  # fmt: skip
        if difference is not None:
            (routers if is_router(now.name) else others).append(difference)
    found = [
        *_router_findings(routers),
        *_expert_findings(damaged),
        *_other_findings(others, _reshaped(reference, candidate)),
    ]
    if renumbered:
        found.append(
            Finding(
                Severity.INFO,
                "experts-renumbered",
                "The experts are numbered in another order; their routers know",
                f"in {_layers(sorted(renumbered))}: the answers are the same, but statistics of "
                "single experts cannot be compared",
            )
        )
    return found


def bad_values_findings(reference: Fingerprint | None, candidate: Fingerprint) -> list[Finding]:
    """NaN and infinite values, in blocks' scales or in plain numbers."""
    found = []
    bad = _bad(candidate)
    if bad:
        found.append(
            Finding(
                Severity.FAIL,
                "bad-values",
                "Weights are not finite numbers",
                _bad_evidence(bad),
                _AGAIN,
            )
        )
    if reference is not None and (bad := _bad(reference)):
        found.append(
            Finding(
                Severity.WARN,
                "bad-values",
                "Weights of the reference are not finite numbers",
                _bad_evidence(bad),
                "Take another reference: this one cannot say what is right.",
            )
        )
    return found


def _pairs(reference: Fingerprint, candidate: Fingerprint) -> list[tuple[TensorPrint, TensorPrint]]:
    """Tensors that should hold the same values. A head that is the embedding table is compared
    with the table."""
    pairs = [
        (reference.by_name[tensor.name], tensor)
        for tensor in candidate.tensors
        if tensor.name in reference.by_name
    ]
    for one, other in ((reference, candidate), (candidate, reference)):
        if HEAD in one.by_name and HEAD not in other.by_name and TABLE in other.by_name:
            head, table = one.by_name[HEAD], other.by_name[TABLE]
            pairs.append((head, table) if one is reference else (table, head))
    return [(before, now) for before, now in pairs if comparable(before, now)]


def _is_scaled(
    before: TensorPrint, now: TensorPrint, reference: Fingerprint, candidate: Fingerprint
) -> bool:
    """Whether one of both has a tensor of scales beside it, so that sizes cannot be compared."""
    name = _SCALED.sub(".scale", now.name)
    return name != now.name and (name in reference.by_name) != (name in candidate.by_name)


def _difference(before: TensorPrint, now: TensorPrint, *, free_scale: bool) -> Difference | None:
    errors = unit_errors(before, now, free_scale=free_scale)
    expected = expected_error(before, now)
    mean = float(np.sqrt((np.minimum(errors, MOST_COUNTED) ** 2).mean()))
    beyond = errors > unit_limit(expected)
    if not beyond.any() and mean <= tensor_limit(expected):
        return None
    worst = int(errors.argmax())
    cosines = None if is_vector(now) else row_cosines(before, now, errors)
    return Difference(
        tensor=now,
        units=int(beyond.sum()) or len(errors),
        worst=worst,
        error=float(errors[worst]),
        mean=mean,
        expected=expected,
        cosines=cosines,
    )


def _router_findings(routers: Sequence[Difference]) -> list[Finding]:
    if not routers:
        return []
    worst = max(routers, key=lambda difference: difference.error)
    rows = [d.cosines for d in routers if d.cosines is not None]
    cosines = np.concatenate(rows) if rows else np.ones(1)
    failed = worst.error > ROUTER_FAIL_ERROR or float(cosines.min()) < ROUTER_FAIL_COSINE
    evidence = f"{_tensors(routers)}; most in {shown(worst.tensor.name)}, {_by(worst)}"
    if rows:
        evidence += f"; {said_of_cosines(cosines)}"
    return [
        Finding(
            Severity.FAIL if failed else Severity.WARN,
            "router-differs",
            "The routers are not the reference's, so other experts are chosen",
            evidence,
            "Take a file whose routers were left alone; quantizers do that by themselves.",
        )
    ]


def _expert_findings(layers: Sequence[LayerExperts]) -> list[Finding]:
    found = []
    if gone := [(layer.layer, expert) for layer in layers for expert in layer.gone]:
        named = "; ".join(f"layer {layer}: expert {expert}" for layer, expert in gone[:_MOST_NAMED])
        found.append(
            Finding(
                Severity.FAIL,
                "expert-zero",
                "Experts are zero that are not in the reference",
                f"{len(gone)} of them: {named}{_more(gone)}",
                _AGAIN,
            )
        )
    moves = [
        (layer.layer, expert, origin)
        for layer in layers
        for expert, origin in sorted(layer.moved.items())
    ]
    if moves:
        named = "; ".join(
            f"layer {layer}: expert {expert} holds the reference's expert {origin}"
            for layer, expert, origin in moves[:_MOST_NAMED]
        )
        found.append(
            Finding(
                Severity.FAIL,
                "experts-swapped",
                "Experts hold the weights of other experts",
                f"{len(moves)} of them: {named}{_more(moves)}",
                "Convert the model again: the experts were put together in a wrong order.",
            )
        )
    return found


def _other_findings(
    differences: Sequence[Difference], reshaped: Sequence[tuple[TensorPrint, TensorPrint]]
) -> list[Finding]:
    found = []
    if reshaped:
        before, now = reshaped[0]
        found.append(
            Finding(
                Severity.FAIL,
                "tensor-differs",
                "Tensors have another shape than the reference's",
                f"{len(reshaped)} of them: {shown(now.name)} is {_shape(now)}, was "
                f"{_shape(before)}{_more(reshaped, 1)}",
                "Take a reference that was made from the same model.",
            )
        )
    if differences:
        worst = max(differences, key=lambda d: min(d.error, 2.0) / (d.expected + 0.01))
        small = max(difference.error for difference in differences) <= SMALL_ERROR
        found.append(
            Finding(
                Severity.WARN if small else Severity.FAIL,
                "tensor-differs",
                "Weights differ from the reference's by more than their types explain",
                f"{_tensors(differences)}; most in {shown(worst.tensor.name)}, {_by(worst)}; "
                f"{worst.units} of {len(worst.tensor.norms)} {_unit_name(worst.tensor)} beyond",
                "Take a file that was made from the same model as the reference, or download this "
                "one again.",
            )
        )
    return found


def _reshaped(
    reference: Fingerprint, candidate: Fingerprint
) -> list[tuple[TensorPrint, TensorPrint]]:
    found = []
    for now in candidate.tensors:
        before = reference.by_name.get(now.name)
        if before is not None and _squeezed(before) != _squeezed(now):
            found.append((before, now))
    return found


def _squeezed(tensor: TensorPrint) -> tuple[int, ...]:
    return tuple(size for size in tensor.shape if size != 1)


def _bad(model: Fingerprint) -> list[TensorPrint]:
    return [t for t in model.tensors if t.bad_rows or not np.isfinite(t.norms).all()]


def _bad_evidence(bad: Sequence[TensorPrint]) -> str:
    parts = []
    for tensor in bad[:_MOST_NAMED]:
        if tensor.first_bad_row is None:
            parts.append(f"{shown(tensor.name)} overflows")
            continue
        place = f"row {tensor.first_bad_row}"
        if has_units_of_experts(tensor) and len(tensor.shape) == 3:
            expert, row = divmod(tensor.first_bad_row, tensor.shape[1])
            place = f"row {row} of expert {expert}"
        parts.append(f"{shown(tensor.name)}: {_count(tensor.bad_rows, 'row')}, first {place}")
    return "; ".join(parts) + _more(bad)


def _by(difference: Difference) -> str:
    """How far the tensor is off, as a part of its size: on the average if all of it is, which is
    known better, otherwise its worst unit."""
    if difference.units == len(difference.tensor.norms) > 1 and np.isfinite(difference.error):
        return _explained(difference.mean, difference.expected)
    if np.isinf(difference.error):
        return f"where {_unit_name(difference.tensor, one=True)} {difference.worst} is zero"
    return _explained(difference.error, difference.expected)


def _explained(error: float, expected: float) -> str:
    amount = f"{error:.2%}" if error < MOST_COUNTED else f"{error:,.0f} times its size"
    return f"by {amount} where its types explain {expected:.2%}"


def _unit_name(tensor: TensorPrint, *, one: bool = False) -> str:
    if has_units_of_experts(tensor):
        return "expert" if one else "experts"
    if is_router(tensor.name):
        return "expert's row" if one else "experts' rows"
    return "sampled row" if one else "sampled rows"


def _tensors(differences: Sequence[Difference]) -> str:
    layers = {d.tensor.layer for d in differences if d.tensor.layer is not None}
    where = f" in {_count(len(layers), 'layer')}" if len(layers) > 1 else ""
    return f"{_count(len(differences), 'tensor')}{where}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _layers(layers: Sequence[int]) -> str:
    named = ", ".join(map(str, layers[:8])) + (", …" if len(layers) > 8 else "")
    return f"{'layer' if len(layers) == 1 else 'layers'} {named}"


def _shape(tensor: TensorPrint) -> str:
    return " × ".join(map(str, tensor.shape))


def _more(things: Collection[object], named: int = _MOST_NAMED) -> str:
    rest = len(things) - named
    return f"; and {rest} more" if rest > 0 else ""
