"""Does the chat template do anything but write text?

It is a program in the model file. The engine here renders it without Python, but the same file goes
into runtimes that do not: with them, what reaches out of the template runs on the host. And a
template that does not end, or that the engine's parser dies of, takes the engine down.

A name like `__description` is worth a warning, not more: no object has one, so nothing can be
reached by it; but no honest template looks for it either.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.errors import MoestroError
from moestro.findings import Finding, Severity

_ELSEWHERE = (
    "Take the model's template from its publisher, and do not trust where this file is from."
)


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    spec = case.model.spec
    if spec.chat_template is None and spec.tool_template is None:
        return
    report = case.model.template
    if report is None or isinstance(report, MoestroError):
        yield unknown(
            "template-not-tried",
            "The chat template was not tried",
            report.sentence if report is not None else None,
            (report.hint if report is not None else None)
            or "Run moestro doctor with the model's path.",
        )
        return
    for rendering in report.renderings:
        if rendering.outcome == "reaches-outside":
            yield Finding(
                Severity.FAIL,
                "chat-template-unsafe",
                "The chat template reaches outside: it is an attack, or was made by one",
                rendering.message,
                _ELSEWHERE,
            )
            return
        if rendering.outcome == "out-of-limits":
            yield Finding(
                Severity.FAIL,
                "chat-template-runaway",
                "The chat template does not end as a template should",
                f"{rendering.message} ({_WORDS[rendering.conversation]})",
                _ELSEWHERE,
            )
            return
    if report.engine in _TAKES_DOWN:
        yield Finding(
            Severity.FAIL,
            "chat-template-runaway",
            "The chat template takes the engine down",
            _TAKES_DOWN[report.engine],
            _ELSEWHERE,
        )
        return
    if report.private is not None:
        yield Finding(
            Severity.WARN,
            "chat-template-private-attribute",
            "The chat template looks for a private attribute",
            f"it {report.private}; neither messages nor tools have such names",
            "Compare it with the template of the model's publisher.",
        )
        return
    beyond = (
        "its syntax reaches for nothing else"
        if report.unclear is None
        else f"it {report.unclear}, so that only what was tried is known"
    )
    yield ok(
        "template-safe",
        "The chat template only writes text",
        f"rendered in a sandbox, in a process with limits; {beyond}",
    )


_TAKES_DOWN = {
    "crashed": "the engine's own parser crashes on it, as the engine would when it starts",
    "endless": "the engine's own parser does not come to an end with it, or fills the memory",
}


_WORDS = {
    "plain": "for one question",
    "system": "with a system message",
    "turns": "for several turns",
    "tools": "with tools",
}

CHECK = Check("template-safe", "model", "Does the chat template only write text?", run)
