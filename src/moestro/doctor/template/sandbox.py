"""The environment in which a chat template is rendered: what the field's runtimes give it, no more.

As transformers sets it up (blocks trimmed, `break` and `continue`, `raise_exception`,
`strftime_now`, `tojson` that leaves HTML characters alone, `{% generation %}`), with two
differences. A template may change its own lists and objects: engines allow it, and published
templates do it; `changed_data` tells. And whatever the sandbox refuses is remembered, because it
mostly answers an attribute out of reach with nothing at all, so that the text looks innocent.

Only the child imports this: see `child`.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment, modifies_known_mutable


class Refused(TemplateError):
    """The template called `raise_exception`."""


class TemplateEnvironment(SandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        self.reached: list[str] = []
        self.changed_data = False
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = _strftime_now

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            self.reached.append(f"the attribute {attr} of a {type(obj).__name__}")
            return False
        if modifies_known_mutable(obj, attr):
            self.changed_data = True
        return True

    def is_safe_callable(self, obj: Any) -> bool:
        if super().is_safe_callable(obj):
            return True
        self.reached.append(f"a call of {type(obj).__name__}")
        return False


class _Generation(Extension):
    """`{% generation %}` marks what the model wrote, for those who train it."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _refuse(message: object) -> NoReturn:
    raise Refused(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
