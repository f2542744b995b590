"""Does the file say how its routers score experts?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.findings import Finding

_LOST = "gating-function-lost"


def run(case: Case) -> Iterator[Finding]:
    if case.model is None or case.model.spec.experts is None:
        return
    spec, experts = case.model.spec, case.model.spec.experts
    lost = [finding for finding in spec.findings if finding.code == _LOST]
    yield from lost
    if lost:
        return
    if experts.gating == "unknown":
        yield unknown(
            "gating-unknown",
            "How the routers score experts is not known",
            f"{spec.architecture} names a function that moestro does not know",
            "Compare the scoring function in the model's config.json with expert_gating_func in "
            "the file.",
        )
        return
    yield ok(
        "gating",
        "The routers' scoring function is there",
        f"{experts.gating}, {experts.used} of {experts.count} experts",
    )


CHECK = Check("gating", "model", "Was the routers' scoring function kept?", run, quick=True)
