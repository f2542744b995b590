"""Does the file say how a conversation is written for it?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.findings import Finding, Severity
from moestro.units import format_bytes


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    spec = case.model.spec
    size_bytes = next(
        (
            size_bytes
            for text, size_bytes in (
                (spec.chat_template, spec.chat_template_bytes),
                (spec.tool_template, spec.tool_template_bytes),
            )
            if text is None and size_bytes is not None
        ),
        None,
    )
    if size_bytes is not None:
        yield Finding(
            Severity.FAIL,
            "chat-template-too-large",
            "The chat template is larger than any that was ever published, and was not looked at",
            f"{format_bytes(size_bytes)}; the longest published ones have 64 KiB",
            "Take the model's template from its publisher: the engine would run all of this one.",
        )
        return
    if spec.chat_template is not None:
        evidence = f"{len(spec.chat_template):,} characters"
        if spec.tool_template is not None:
            evidence += f", and {len(spec.tool_template):,} of one for tools"
        yield ok("template-present", "There is a chat template", evidence)
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
