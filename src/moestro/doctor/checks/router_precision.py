"""Do the routers have the precision that choosing experts needs?

Engines' own quantizers leave routers alone: they are tiny, and a rounded logit chooses another
expert. A 4-bit router was seen to collapse: of 152 in 256 rows the direction was lost, and the
output repeated itself. At 8 bits close choices change, and nothing is gained.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.model import Role, TensorInfo
from moestro.model.what_if import bits_per_weight

COLLAPSES_BITS, ROUNDS_BITS, PLAIN_BITS = 4.5, 8.5, 16.0
_FIX = "Take a file whose routers are F32 or F16, as the usual quantizers leave them."


def run(case: Case) -> Iterator[Finding]:
    if case.model is None or case.model.spec.experts is None:
        return
    tensors = [t for t in case.model.spec.tensors if t.elements and _chooses(t)]
    routers = [t for t in tensors if not _is_bias(t)]
    rounded = [t for t in routers if _bits(t) <= ROUNDS_BITS]
    worst = min(rounded, key=_bits, default=None)
    if worst is not None:
        yield Finding(
            Severity.FAIL if _bits(worst) <= COLLAPSES_BITS else Severity.WARN,
            "router-quantized",
            "Routers are quantized, so other experts are chosen than the model was trained for",
            f"{len(rounded)} of {len(routers)} routers, {worst.name} in {worst.type} "
            f"({_bits(worst):.2g} bits per weight)",
            _FIX,
        )
    biases = [t for t in tensors if _is_bias(t) and _bits(t) < 2 * PLAIN_BITS]
    if biases:
        lowest = min(biases, key=_bits)
        yield Finding(
            Severity.INFO if _bits(lowest) >= PLAIN_BITS else Severity.WARN,
            "expert-bias-rounded",
            "The biases that balance the experts are rounded",
            f"{len(biases)} of them, {lowest.name} in {lowest.type}; they differ by thousandths",
            "Take a file that keeps exp_probs_b in F32.",
        )
    if worst is None and routers and not biases:
        kinds = ", ".join(sorted({tensor.type for tensor in routers}))
        yield ok("router-precision", "Routers are not quantized", f"{len(routers)} in {kinds}")


def _chooses(tensor: TensorInfo) -> bool:
    """Routers of multi-token prediction blocks too. The gate of a shared expert chooses nothing."""
    named = "ffn_gate_inp." in tensor.name or "exp_probs_b" in tensor.name
    return (tensor.role is Role.ROUTER or named) and "shexp" not in tensor.name


def _is_bias(tensor: TensorInfo) -> bool:
    return len(tensor.shape) == 1


def _bits(tensor: TensorInfo) -> float:
    return bits_per_weight(tensor.size_bytes, tensor.elements)


CHECK = Check("router-precision", "model", "Are the routers left unquantized?", run, quick=True)
