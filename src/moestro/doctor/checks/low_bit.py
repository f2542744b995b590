"""How many bits are left of the experts?

Below three bits per weight quantized experts shift what the next router sees, and different experts
are chosen: published comparisons show divergences of 0.05 at 3 bits and above 0.1 below, against
0.014 at 4 bits. Not every model minds, so `verify` has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.model import ModelSpec
from moestro.model.ggml_types import BY_NAME
from moestro.model.quants import label_of
from moestro.model.what_if import bits_per_weight, type_of_label

LOW_BITS = 3.0
_LABEL_TOLERANCE_BITS = 1.0
"""Recipes mix types: those of one label differ by less."""


def run(case: Case) -> Iterator[Finding]:
    spec = case.model.spec if case.model is not None else None
    bits = expert_bits(spec) if spec is not None else None
    if spec is None or bits is None:
        return
    if bits < LOW_BITS:
        yield Finding(
            Severity.WARN,
            "low-bit-experts",
            "The experts have so few bits that routing may shift",
            f"{bits:.2f} bits per weight",
            "Compare it before it serves: moestro verify MODEL --reference REF; or take a file "
            "of 4 bits.",
        )
    else:
        yield ok("low-bit", "The experts have enough bits", f"{bits:.2f} bits per weight")
    yield from _label(spec, bits)


def _label(spec: ModelSpec, bits: float) -> Iterator[Finding]:
    label = label_of(PurePosixPath(spec.files[0].location).name) or spec.quantization
    kind = BY_NAME.get(type_of_label(label) or "") if label is not None else None
    if kind is None:
        return
    promised = kind.block_bytes * 8 / kind.block_size
    if bits < promised - _LABEL_TOLERANCE_BITS:
        yield Finding(
            Severity.INFO,
            "label-promises-more",
            "The experts have fewer bits than the file's label says",
            f"{label} means about {promised:.2f} bits per weight, the experts have {bits:.2f}",
            "Go by the sizes that moestro inspect shows, not by the label.",
        )


def expert_bits(spec: ModelSpec) -> float | None:
    """Bits per weight of the routed experts; None of a model without any."""
    experts = [tensor for tensor in spec.tensors if tensor.is_routed_expert]
    parameters = sum(tensor.elements for tensor in experts)
    if not parameters:
        return None
    return bits_per_weight(sum(tensor.size_bytes for tensor in experts), parameters)


CHECK = Check("low-bit", "model", "Are enough bits left of the experts?", run, quick=True)
