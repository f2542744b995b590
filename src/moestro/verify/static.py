"""What can be told from two files of one model without running either.

Both are seen through their fingerprints (`take_fingerprint`), so the reference's weights need not
be at hand. A row or expert counts as different only beyond what its tensor's types explain; which
error that is, and how far clean files stay below it, is in `type_errors` and `unit_errors`. Only a
sample of the rows is compared, but every expert and every router row; NaN and Inf are looked for in
every block.
"""

from __future__ import annotations

from moestro.findings import Finding, Severity
from moestro.verify.fingerprint import Fingerprint
from moestro.verify.static_keys import keys_findings, tokenizer_findings
from moestro.verify.static_tensors import tensors_findings, types_findings
from moestro.verify.static_values import bad_values_findings, values_findings
from moestro.words import shown


def check_static(reference: Fingerprint, candidate: Fingerprint) -> tuple[Finding, ...]:
    """Everything that is wrong with `candidate`, one finding for each kind; none for a file that is
    `reference` again, byte by byte, unless it holds values that are not finite."""
    bad = bad_values_findings(reference, candidate)
    if reference.digests == candidate.digests:
        return tuple(bad)
    if reference.architecture != candidate.architecture:
        different = Finding(
            Severity.FAIL,
            "architecture-differs",
            "The reference is a model of another architecture",
            f"{shown(reference.architecture)} in the reference, "
            f"{shown(candidate.architecture)} here",
            "Take a reference that was made from the same model.",
        )
        return (different, *bad)
    return (
        *bad,
        *tensors_findings(reference, candidate),
        *tokenizer_findings(reference, candidate),
        *keys_findings(reference, candidate),
        *types_findings(reference, candidate),
        *values_findings(reference, candidate),
    )
