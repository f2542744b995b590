"""Does the file say how a conversation is written for it?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    template = case.model.spec.chat_template
    if template is not None:
        yield ok("template-present", "There is a chat template", f"{len(template):,} characters")
        return
    # It will run, and answer; only worse than it could, and nothing in its answers says why.
    yield Finding(
        Severity.WARN,
        "chat-template-missing",
        "There is no chat template, so the engine guesses how turns are written",
        "the engine takes ChatML, which the model may never have seen",
        "Take the instruction-tuned file of this model; a base model is for completions only.",
    )


CHECK = Check("template-present", "model", "Is there a chat template?", run, quick=True)
