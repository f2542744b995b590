"""What a template would reach for, told from its syntax alone: also what a condition hides.

Templates look at messages and tools, which are plain data. None of it has a name with two
underscores in front, so whoever writes one is after Python's own workings (`''.__class__`,
`cycler.__init__.__globals__`): runtimes that render without a sandbox run what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jinja2 import nodes
from jinja2.environment import Environment
from jinja2.sandbox import (
    UNSAFE_ASYNC_GENERATOR_ATTRIBUTES,
    UNSAFE_COROUTINE_ATTRIBUTES,
    UNSAFE_GENERATOR_ATTRIBUTES,
)

_INNER = re.compile(r"__\w*|_\w*__\w*")
_NAMES = (
    UNSAFE_GENERATOR_ATTRIBUTES | UNSAFE_COROUTINE_ATTRIBUTES | UNSAFE_ASYNC_GENERATOR_ATTRIBUTES
    | {"mro", "f_globals", "f_locals", "f_builtins", "f_back", "tb_frame", "func_globals"}
)  # fmt: skip
_INNER_FIELD = re.compile(r"[.\[]_")
_BY_ATTRIBUTE = frozenset(
    {"attr", "map", "selectattr", "rejectattr", "groupby", "sort", "unique", "min", "max", "sum"}
)
_OTHER_FILES: dict[type[nodes.Node], str] = {
    nodes.Include: "includes",
    nodes.Import: "imports",
    nodes.FromImport: "imports",
    nodes.Extends: "extends",
}


def reaches_for(tree: nodes.Template, environment: Environment) -> str | None:
    """The first thing in `tree` that reaches outside, in a clause; None if all is well."""
    return next(_all(tree, nodes.EvalContext(environment)), None)


def _all(tree: nodes.Template, context: nodes.EvalContext) -> Iterator[str]:
    for node in tree.find_all(nodes.Node):
        where = f"in line {node.lineno}"
        if type(node) in _OTHER_FILES:
            yield f"{_OTHER_FILES[type(node)]} another file {where}"
        for name in _attributes(node, context):
            if any(_is_inner(part) for part in name.split(".")):
                yield f"reads the attribute {name} {where}"
        if (
            isinstance(node, nodes.Getattr)
            and node.attr in ("format", "format_map")
            and _INNER_FIELD.search(_text(node.node, context) or "")
        ):
            yield f"formats a text that reads attributes {where}"


def _attributes(node: nodes.Node, context: nodes.EvalContext) -> Iterator[str]:
    """The attributes that `node` looks up, as far as they are written down."""
    found: list[str | None] = []
    if isinstance(node, nodes.Getattr):
        found = [node.attr]
    elif isinstance(node, nodes.Getitem):
        found = [_text(node.arg, context)]
    elif isinstance(node, nodes.Filter | nodes.Test) and node.name in _BY_ATTRIBUTE:
        found = [_text(argument, context) for argument in node.args or ()]
        found += [_text(pair.value, context) for pair in node.kwargs or ()]
    yield from (name for name in found if name is not None)


def _text(node: nodes.Expr, context: nodes.EvalContext) -> str | None:
    """The text that an expression always has, however it is put together."""
    try:
        value = node.as_const(context)
    except nodes.Impossible:
        return None
    return value if isinstance(value, str) else None


def _is_inner(name: str) -> bool:
    return _INNER.fullmatch(name) is not None or name in _NAMES
