"""What a template would reach for, told from its syntax alone: also what a condition hides.

Templates look at messages and tools, which are plain data. None of it has a name that Python keeps
for itself, so whoever writes one is after Python's own workings (`''.__class__`,
`cycler.__init__.__globals__`): runtimes that render without a sandbox run what follows. A name can
also be put together while the template runs. Where that is done to one of Jinja's own objects, it
can be for nothing else; where it is done to data, syntax cannot tell, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import nodes
from jinja2.environment import Environment
from jinja2.sandbox import (
    UNSAFE_ASYNC_GENERATOR_ATTRIBUTES,
    UNSAFE_COROUTINE_ATTRIBUTES,
    UNSAFE_GENERATOR_ATTRIBUTES,
)

from moestro.doctor.template.values import HELPERS, Trust, Values
from moestro.doctor.template.written import put_in_constants, text_of

_PYTHONS = re.compile(r"__\w+__|_[A-Z]\w*?__\w+")
"""Names that Python keeps for itself, and what it makes of a class's private ones."""

_PRIVATE = re.compile(r"__\w*|_\w*__\w*")
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
_OF_MACROS = frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"})
_OF_HELPERS = {"dict": frozenset({"fromkeys"})}
_TAKES_APART = (nodes.Getattr, nodes.Getitem)


@dataclass(frozen=True, slots=True)
class Syntax:
    """The first thing of each kind, in a clause; None where there is none. `reaches`: what no
    template needs and an attack does. `private`: a name that nothing in reach has. `unclear`: what
    is looked up is put together while the template runs."""

    reaches: str | None = None
    private: str | None = None
    unclear: str | None = None


def look_at_syntax(tree: nodes.Template, environment: Environment) -> Syntax:
    """Changes `tree`: what can be computed of it is."""
    context = nodes.EvalContext(environment)
    put_in_constants(tree, context)
    found: dict[str, str] = {}
    for kind, what in _all(tree, context):
        found.setdefault(kind, what)
    return Syntax(**found)


def _all(tree: nodes.Template, context: nodes.EvalContext) -> Iterator[tuple[str, str]]:
    values = Values(tree)
    for node in tree.find_all(nodes.Node):
        for kind, what in _of_node(node, values, context):
            yield kind, f"{what} in line {node.lineno}"
    for name in _handed_on(tree, values):
        yield (
            "unclear" if values.is_own(name.name) else "reaches",
            f"hands on Jinja's {name.name} in line {name.lineno}",
        )


def _of_node(
    node: nodes.Node, values: Values, context: nodes.EvalContext
) -> Iterator[tuple[str, str]]:
    if type(node) in _OTHER_FILES:
        yield "reaches", f"{_OTHER_FILES[type(node)]} another file"
    for sought in _sought(node):
        name = text_of(sought, context) if isinstance(sought, nodes.Expr) else sought
        if name is not None:
            yield from _written(node, name, values)
        elif isinstance(sought, nodes.Expr) and not isinstance(sought, nodes.Slice):
            yield from _put_together(node, sought, values)
    if isinstance(node, nodes.Getattr) and node.attr in ("format", "format_map"):
        form = text_of(node.node, context)
        if form is None:
            yield "unclear", "formats a text that is put together while it runs"
        elif _INNER_FIELD.search(form):
            yield "reaches", "formats a text that reads attributes"


def _sought(node: nodes.Node) -> Iterator[str | nodes.Expr]:
    """What `node` looks up: attributes as they are written, or what computes them."""
    if isinstance(node, nodes.Getattr):
        yield node.attr
    elif isinstance(node, nodes.Getitem):
        yield node.arg
    elif isinstance(node, nodes.Filter | nodes.Test) and node.name in _BY_ATTRIBUTE:
        yield from (node.args or ())[:1]
        yield from (pair.value for pair in node.kwargs or () if pair.key == "attribute")


def _written(node: nodes.Node, name: str, values: Values) -> Iterator[tuple[str, str]]:
    parts = name.split(".")
    if any(_PYTHONS.fullmatch(part) or part in _NAMES for part in parts):
        yield "reaches", f"reads the attribute {name}"
        return
    if any(_PRIVATE.fullmatch(part) for part in parts):
        yield "private", f"reads the attribute {name}"
    helper = _helper(node, values)
    if helper is not None and name not in _allowed(helper, values):
        yield "reaches", f"takes Jinja's {helper} apart"


def _put_together(
    node: nodes.Node, sought: nodes.Expr, values: Values
) -> Iterator[tuple[str, str]]:
    helper = _helper(node, values)
    if helper is not None:
        yield "reaches", f"takes Jinja's {helper} apart"
        return
    if values.is_number(sought):
        return
    base = node.node if isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Filter) else None
    trust = values.of(base) if base is not None else Trust.PLAIN
    if trust is Trust.INNER and (root := values.root(base)) is not None:
        yield "reaches", f"takes {root} apart by a name that is put together while it runs"
    elif (
        trust is Trust.INNER
        or values.of(sought) is not Trust.PLAIN
        or (isinstance(node, nodes.Filter) and node.name == "attr")
    ):
        yield "unclear", "looks up a name that is put together while it runs"


def _helper(node: nodes.Node, values: Values) -> str | None:
    """The name of the helper or macro that `node` takes something out of."""
    takes = isinstance(node, _TAKES_APART) or (
        isinstance(node, nodes.Filter) and node.name == "attr"
    )
    base = node.node if takes and isinstance(node, (*_TAKES_APART, nodes.Filter)) else None
    if isinstance(base, nodes.Name) and values.is_helper(base.name):
        return base.name
    return None


def _allowed(helper: str, values: Values) -> frozenset[str]:
    if helper == "self":
        return values.blocks
    return _OF_MACROS if helper in values.macros else _OF_HELPERS.get(helper, frozenset())


def _handed_on(tree: nodes.Template, values: Values) -> Iterator[nodes.Name]:
    """Helpers and macros that are neither called, nor tested, nor taken apart where they stand."""
    seen = {
        id(node.node)
        for node in tree.find_all((nodes.Call, nodes.Test, nodes.Filter, *_TAKES_APART))
        if isinstance(node, nodes.Call | nodes.Test | nodes.Getattr | nodes.Getitem)
        or (isinstance(node, nodes.Filter) and node.name == "attr")
    }
    for name in tree.find_all(nodes.Name):
        handed = name.ctx == "load" and id(name) not in seen and values.is_helper(name.name)
        if handed and (name.name in HELPERS or name.name in values.macros):
            yield name
