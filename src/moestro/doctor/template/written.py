"""What a template's expressions come to without running it."""

from __future__ import annotations

from collections import Counter

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

_MOST_ROUNDS = 8
_MOST_CHARACTERS = 4096


def text_of(node: nodes.Expr, context: nodes.EvalContext) -> str | None:
    """The text that an expression always has, however it is put together."""
    value = _value(node, context)
    return value if isinstance(value, str) else None


def put_in_constants(tree: nodes.Template, context: nodes.EvalContext) -> None:
    """Writes the value of each name that is set once, to something constant, wherever it is used;
    again and again, as such values are made of others."""
    stored = Counter(name.name for name in tree.find_all(nodes.Name) if name.ctx != "load")
    known: dict[str, object] = {}
    for _ in range(_MOST_ROUNDS):
        fresh: dict[str, object] = {}
        for assign in tree.find_all(nodes.Assign):
            target = assign.target
            if isinstance(target, nodes.Name) and stored[target.name] == 1:
                value = _value(assign.node, context)
                short = not isinstance(value, str) or len(value) <= _MOST_CHARACTERS
                if isinstance(value, str | int) and short and target.name not in known:
                    fresh[target.name] = value
        if not fresh:
            return
        known |= fresh
        _Constants(fresh).visit(tree)


class _Constants(NodeTransformer):
    def __init__(self, values: dict[str, object]) -> None:
        self._values = values

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:  # noqa: N802 - the base class's way
        if node.ctx == "load" and node.name in self._values:
            return nodes.Const(self._values[node.name], lineno=node.lineno)
        return node


def _value(node: nodes.Node, context: nodes.EvalContext) -> object:
    try:
        return node.as_const(context) if isinstance(node, nodes.Expr) else None
    except nodes.Impossible:
        return None
