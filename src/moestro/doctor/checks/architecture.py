"""Does the engine run this architecture?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity

_REFUSES, _UNKNOWN = "engine-refuses", "architecture-unknown"


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    spec = case.model.spec
    if spec.format != "gguf":
        yield Finding(
            Severity.WARN,
            "needs-conversion",
            "The engine here does not run this format",
            f"{spec.format} files of {spec.architecture}",
            "Convert them to GGUF, or serve them with vLLM: moestro export PLAN --to vllm.",
        )
        return
    refused = [f for f in (case.plan.findings if case.plan else ()) if f.code == _REFUSES]
    yield from refused
    unknown = [finding for finding in spec.findings if finding.code == _UNKNOWN]
    yield from unknown
    if not refused and not unknown:
        asked = "the engine laid it out" if case.plan is not None else "known to moestro"
        yield ok("architecture", "The architecture is supported", f"{spec.architecture}: {asked}")


CHECK = Check("architecture", "model", "Does the engine run this architecture?", run, quick=True)
