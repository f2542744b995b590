"""Child process of `examine`: renders a template that nobody has reason to trust.

Usage: python -P -m moestro.doctor.template.child, with one JSON object on stdin. It limits itself
before it reads the template. It prints a JSON line when it is ready, one on the template's syntax,
and one for each trial as soon as it is done: what kills it takes only the rest away.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError

from moestro.doctor.template.reaching import look_at_syntax
from moestro.doctor.template.report import Outcome
from moestro.doctor.template.sandbox import Refused, TemplateEnvironment

MOST_MESSAGE_CHARACTERS = 300


def main() -> int:
    request = json.load(sys.stdin)
    _limit(request["cpu_seconds"], request["memory_bytes"])
    _tell({"ready": True})
    environment = TemplateEnvironment()
    template = _compiled(environment, request["template"])
    for trial in request["trials"]:
        environment.reached.clear()
        if isinstance(template, Template):
            variables = {**request["tokens"], **trial["variables"]}
            outcome, text = _rendered(
                environment, template, variables, request["text_characters"]
            )  # fmt: skip
        else:
            outcome, text = template
        _tell(_told(trial["name"], outcome, text, environment.changed_data))
        if outcome in ("reaches-outside", "out-of-limits"):
            break
    return 0


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Processor time, memory, no file to write. Windows has none of this; there the parent's clock
    is all."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + cpu_seconds
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):  # a stricter one is set already
            resource.setrlimit(what, (most, most))


def _compiled(environment: TemplateEnvironment, source: str) -> Template | tuple[Outcome, str]:
    """The template, or how it ended before it could be rendered."""
    try:
        syntax = look_at_syntax(environment.parse(source), environment)
        if syntax.reaches is not None:
            return "reaches-outside", f"it {syntax.reaches}"
        _tell({"private": _printable(syntax.private), "unclear": _printable(syntax.unclear)})
        return environment.from_string(source)
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        return _ended(environment, error)


def _rendered(
    environment: TemplateEnvironment, template: Template, variables: dict[str, Any], most: int
) -> tuple[Outcome, str]:
    try:
        pieces, length = [], 0
        for piece in template.generate(**variables):
            length += len(piece)
            if length > most:
                return "out-of-limits", f"it writes more than {most:,} characters"
            pieces.append(piece)
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        return _ended(environment, error)
    if environment.reached:
        return "reaches-outside", f"it reads {environment.reached[0]}"
    return "rendered", "".join(pieces)


def _ended(environment: TemplateEnvironment, error: Exception) -> tuple[Outcome, str]:
    if environment.reached:
        return "reaches-outside", f"it reads {environment.reached[0]}"
    match error:
        case Refused():
            return "refused", str(error)
        case SecurityError():
            return "reaches-outside", str(error)
        case MemoryError():
            return "out-of-limits", "it takes more memory than any template needs"
        case OverflowError():
            return "out-of-limits", f"it counts too far: {error}"
        case RecursionError():
            return "out-of-limits", "it nests or calls itself without end"
        case TemplateSyntaxError():
            return "broken", f"line {error.lineno}: {error.message}"
        case UndefinedError() | TemplateError():
            return "broken", str(error)
    return "broken", f"{type(error).__name__}: {error}"


def _told(trial: str, outcome: Outcome, text: str, changed_data: bool) -> dict[str, Any]:
    rendered = outcome == "rendered"
    return {
        "trial": trial,
        "outcome": outcome,
        "text": text if rendered else "",
        "message": "" if rendered else _printable(text),
        "changed_data": changed_data,
    }


def _printable(text: str | None) -> str | None:
    cut = None if text is None else text[:MOST_MESSAGE_CHARACTERS]
    return None if cut is None else "".join(c if c.isprintable() else " " for c in cut)


def _tell(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
