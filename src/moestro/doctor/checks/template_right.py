"""Is what the chat template writes what was said?

Severities. What a question or an earlier answer loses is never seen by the model: fail. A system
message or part of a tool call that is lost makes it wrong in part: warn. To know no tools, or no
system message, is a limit that the engine works around (it describes the tools itself, and puts the
system message into the first question): worth knowing. What breaks here and is accepted by the
engine's own parser works there, and breaks in other runtimes: warn.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.template.conversations import TOOL_NAME, TOOL_PARAMETER
from moestro.doctor.template.report import Rendering, TemplateReport
from moestro.engine.tokenizer import TokenizerReport
from moestro.findings import Finding, Severity

_OFFICIAL = "Take the template that the model's publisher has now; such faults are often mended."
_UNSAFE = ("reaches-outside", "out-of-limits")
_TAKES_DOWN = ("crashed", "endless")


def run(case: Case) -> Iterator[Finding]:
    report = case.model.template if case.model is not None else None
    if not isinstance(report, TemplateReport):
        return
    if any(rendering.outcome in _UNSAFE for rendering in report.renderings):
        return  # template-safe says so
    if report.engine in _TAKES_DOWN:
        return  # the same
    found = [
        *_not_asked(case, report),
        *_broken(report),
        *_system(report),
        *_lost(report),
        *_tools(report),
        *_continuation(report),
        *_elsewhere(report),
    ]
    yield from found
    if all(finding.severity is Severity.INFO for finding in found):
        tried = ", ".join(r.conversation for r in report.renderings if r.outcome == "rendered")
        yield ok("template-right", "The chat template keeps what was said", f"tried: {tried}")


def _not_asked(case: Case, report: TemplateReport) -> Iterator[Finding]:
    """Elsewhere than on Linux its parser cannot be reached; where the tokenizer could not be looked
    at, that is said already."""
    looked = case.model is not None and isinstance(case.model.tokenizer, TokenizerReport)
    if report.engine is None and looked and case.host.system == "Linux":
        yield unknown(
            "engine-not-asked-about-template",
            "The engine could not be asked about the chat template",
            "its parser gave no answer, or was ended from outside",
            "Run moestro doctor again with more memory free, or serve it once: moestro up MODEL.",
        )


def _broken(report: TemplateReport) -> Iterator[Finding]:
    accepted = report.engine == "accepted"
    if report.engine == "refused":
        yield Finding(
            Severity.FAIL,
            "engine-refuses-template",
            "The engine cannot use the chat template",
            "its parser refuses it for a single question",
            _OFFICIAL,
        )
    for rendering in report.renderings:
        system_refused = rendering.conversation == "system" and rendering.outcome == "refused"
        if rendering.outcome == "rendered" or system_refused or rendering.conversation == "tools":
            continue
        yield Finding(
            Severity.WARN if accepted else Severity.FAIL,
            "chat-template-broken",
            "The chat template fails on an ordinary conversation",
            f"{rendering.message} (conversation: {rendering.conversation})"
            + ("; the engine's own parser accepts it" if accepted else ""),
            _OFFICIAL,
        )
        return


def _system(report: TemplateReport) -> Iterator[Finding]:
    rendering = report.of("system")
    if rendering is not None and rendering.outcome == "refused":
        yield Finding(
            Severity.INFO,
            "chat-template-no-system",
            "The chat template knows no system message",
            rendering.message,
            "The engine puts it into the first question; other runtimes refuse such a request.",
        )


def _lost(report: TemplateReport) -> Iterator[Finding]:
    for rendering in report.renderings:
        if rendering.conversation == "tools" or not rendering.lost:
            continue
        only_system = rendering.conversation == "system" and len(rendering.lost) == 1
        yield _loses(rendering, Severity.WARN if only_system else Severity.FAIL)


def _loses(rendering: Rendering, severity: Severity) -> Finding:
    return Finding(
        severity,
        "chat-template-loses",
        "The chat template leaves out part of the conversation",
        f"{', '.join(rendering.lost)} (conversation: {rendering.conversation})",
        _OFFICIAL,
    )


def _tools(report: TemplateReport) -> Iterator[Finding]:
    rendering, plain = report.of("tools"), report.of("plain")
    if rendering is None or plain is None or plain.outcome != "rendered":
        return
    ignored = {TOOL_NAME, TOOL_PARAMETER}.issubset(rendering.lost)
    if rendering.outcome == "refused" or ignored:
        yield Finding(
            Severity.INFO,
            "chat-template-no-tools",
            "The chat template does not know tools",
            rendering.message or f"left out: {', '.join(rendering.lost)}",
            "The engine then describes tools in words of its own; for agents take a model that "
            "was trained with tools.",
        )
    elif rendering.outcome == "broken":
        yield Finding(
            Severity.WARN,
            "chat-template-broken",
            "The chat template fails on a conversation with tools",
            rendering.message,
            _OFFICIAL,
        )
    elif rendering.lost:
        yield _loses(rendering, Severity.WARN)


def _continuation(report: TemplateReport) -> Iterator[Finding]:
    if report.opens_answer is False:
        yield Finding(
            Severity.WARN,
            "chat-template-opens-no-answer",
            "The chat template does not say where the answer begins",
            "with add_generation_prompt the text ends with the question",
            f"The model may go on with the question instead. {_OFFICIAL}",
        )
    if report.keeps_prefix is False:
        yield Finding(
            Severity.INFO,
            "chat-template-rewrites-history",
            "Earlier turns are written in another way once the conversation goes on",
            "the text up to an answer changes with the next question, mostly by leaving out what "
            "was thought before it",
            "The engine reads what follows the change again at each user turn; leave room for "
            "context checkpoints where the model has recurrent layers.",
        )


def _elsewhere(report: TemplateReport) -> Iterator[Finding]:
    if report.changes_data:
        yield Finding(
            Severity.INFO,
            "chat-template-not-portable",
            "The chat template changes lists or objects, which other runtimes refuse",
            "transformers and vLLM render templates with unchangeable data",
            "Nothing to do here; there take the publisher's current template.",
        )


CHECK = Check("template-right", "model", "Does the chat template keep what was said?", run)
