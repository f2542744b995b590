"""Are the tensors of multi-token prediction there, where the file or the plan counts on them?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity

_MISSING = "mtp-tensors-missing"


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    spec = case.model.spec
    missing = [finding for finding in spec.findings if finding.code == _MISSING]
    yield from missing
    depth = case.plan.settings.mtp_depth if case.plan is not None else 0
    if depth and not spec.mtp_layers:
        yield Finding(
            Severity.FAIL,
            "mtp-absent",
            "The plan drafts with multi-token prediction, and the file has none",
            f"a depth of {depth} planned, no MTP block in the file",
            "Plan with --mtp 0, or take a file that was converted with its MTP layer.",
        )
    elif spec.mtp_layers and not missing:
        blocks = "one block" if spec.mtp_layers == 1 else f"{spec.mtp_layers} blocks"
        used = f"drafts {depth} tokens" if depth else "is not used by the plan"
        evidence = f"{blocks}; it {used}" if case.plan is not None else blocks
        yield ok("mtp", "Multi-token prediction has its tensors", evidence)


CHECK = Check(
    "mtp", "model", "Are the tensors of multi-token prediction really there?", run, quick=True
)
