"""Where the values in a template come from: plain data, texts put together, Jinja's own objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum

from jinja2 import nodes

HELPERS = frozenset({"cycler", "joiner", "lipsum", "namespace", "range", "dict", "self"})
_OFTEN_RENAMED = frozenset({"range", "dict"})
"""Words that honest templates use for variables of their own."""

_MAKERS = frozenset({"cycler", "joiner", "namespace"})
_LOOP_CALLS = frozenset({"cycle", "changed"})
_LOOP_NUMBERS = frozenset(
    {"index", "index0", "revindex", "revindex0", "length", "depth", "depth0", "first", "last"}
)
_NUMBER_FILTERS = frozenset({"length", "count", "int", "float", "abs", "round"})
_CHOOSING_FILTERS = frozenset(
    {"items", "list", "first", "last", "default", "d", "trim", "dictsort", "sort", "unique",
     "selectattr", "rejectattr", "select", "reject", "map", "batch", "slice", "groupby"}
)  # fmt: skip
_CHOOSING_METHODS = frozenset(
    {"items", "keys", "values", "get", "split", "rsplit", "splitlines", "strip", "lstrip",
     "rstrip", "copy", "pop"}
)  # fmt: skip
_MOST_ROUNDS = 16


class Trust(IntEnum):
    """`PLAIN`: data, as it came or as it is written down. `MADE`: data, but a text may have been
    put together. `INNER`: may be one of Jinja's or Python's own objects."""

    PLAIN = 0
    MADE = 1
    INNER = 2


class Values:
    """Of one template. A name is as trusted as the least trusted value that it ever gets."""

    def __init__(self, tree: nodes.Template) -> None:
        self.macros = frozenset(macro.name for macro in tree.find_all(nodes.Macro))
        self.blocks = frozenset(block.name for block in tree.find_all(nodes.Block))
        self._stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
        self._spaces: set[str] = set()
        self._kept: set[str] = set()
        self._trust: dict[str, Trust] = {}
        given = list(_given(tree))
        for name, value in given:
            if _calls(value) == "namespace":
                self._spaces.add(name)
            if _calls(value) in _MAKERS:
                self._kept.add(name)
        for _ in range(_MOST_ROUNDS):
            if not self._learn(given):
                return
        self._trust = {name: Trust.INNER for name, _ in given}  # too tangled to be told

    def _learn(self, given: Iterable[tuple[str, nodes.Node]]) -> bool:
        changed = False
        for name, value in given:
            found = self.of(value)
            if found > self._trust.get(name, Trust.PLAIN):
                self._trust[name] = found
                changed = True
        return changed

    def is_helper(self, name: str) -> bool:
        """Jinja's own, or a macro."""
        renamed = name in _OFTEN_RENAMED and name in self._stored
        return name in self.macros or (name in HELPERS and not renamed)

    def is_own(self, name: str) -> bool:
        """The template itself gives this name a meaning, somewhere."""
        return name in self.macros or name in self._stored

    def root(self, node: nodes.Node | None) -> str | None:
        """The helper, or the name that one is kept under, at the beginning of a chain."""
        while isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Filter | nodes.Call):
            node = node.node
        if not isinstance(node, nodes.Name):
            return None
        inner = self.is_helper(node.name) or node.name == "loop" or node.name in self._kept
        return node.name if inner else None

    def of(self, node: nodes.Node) -> Trust:
        match node:
            case nodes.Const():
                written = isinstance(node.value, str) and "__" in node.value
                return Trust.MADE if written else Trust.PLAIN
            case nodes.Name():
                inner = self.is_helper(node.name) or node.name in ("loop", "caller")
                return Trust.INNER if inner else self._trust.get(node.name, Trust.PLAIN)
            case nodes.Getattr():
                return self._of_attribute(node)
            case nodes.Getitem():
                return self.of(node.node)
            case nodes.Call():
                return self._of_call(node)
            case nodes.Filter():
                return self._of_filter(node)
            case nodes.Compare() | nodes.Test() | nodes.Not():
                return Trust.PLAIN
        found = self._worst(node.iter_child_nodes())
        chooses = isinstance(
            node, nodes.CondExpr | nodes.Or | nodes.And | nodes.List | nodes.Tuple | nodes.Dict
            | nodes.Pair | nodes.Keyword | nodes.Slice
        )  # fmt: skip
        return found if chooses or self.is_number(node) else max(Trust.MADE, found)

    def _of_attribute(self, node: nodes.Getattr) -> Trust:
        if isinstance(node.node, nodes.Name):
            if node.node.name == "loop":
                return Trust.INNER if node.attr in _LOOP_CALLS else Trust.PLAIN
            if node.node.name in self._spaces:
                return self._trust.get(f"{node.node.name}.{node.attr}", Trust.PLAIN)
        return self.of(node.node)

    def _of_call(self, node: nodes.Call) -> Trust:
        called = node.node
        if isinstance(called, nodes.Name):
            if called.name in _MAKERS:
                return Trust.INNER
            if called.name in ("range", "dict", "caller", "strftime_now"):
                return self._worst(node.args, node.kwargs)
            return Trust.MADE if self.is_helper(called.name) else Trust.INNER
        if isinstance(called, nodes.Getattr):
            if isinstance(called.node, nodes.Name) and called.node.name == "loop":
                return self._worst(node.args)
            found = max(self.of(called.node), self._worst(node.args, node.kwargs))
            return found if called.attr in _CHOOSING_METHODS else max(Trust.MADE, found)
        return Trust.INNER

    def _of_filter(self, node: nodes.Filter) -> Trust:
        if node.name == "attr":
            return Trust.INNER
        inside = self.of(node.node) if node.node is not None else Trust.PLAIN
        if node.name in _NUMBER_FILTERS:
            return Trust.PLAIN
        if node.name in ("default", "d"):
            inside = max(inside, self._worst(node.args))
        return inside if node.name in _CHOOSING_FILTERS else max(Trust.MADE, inside)

    def _worst(self, *groups: Iterable[nodes.Node]) -> Trust:
        return max((self.of(node) for group in groups for node in group), default=Trust.PLAIN)

    def is_number(self, node: nodes.Node) -> bool:
        """It is no text, whatever it is."""
        match node:
            case nodes.Const():
                return not isinstance(node.value, str)
            case nodes.Neg() | nodes.Pos() | nodes.Sub() | nodes.Div() | nodes.FloorDiv():
                return True
            case nodes.Pow() | nodes.Compare() | nodes.Test() | nodes.Not():
                return True
            case nodes.Add():  # a number and a text cannot be added
                return self.is_number(node.left) or self.is_number(node.right)
            case nodes.Mul():
                return self.is_number(node.left) and self.is_number(node.right)
            case nodes.Mod():
                return self.is_number(node.left)
            case nodes.Filter():
                return node.name in _NUMBER_FILTERS
            case nodes.Getattr(node=nodes.Name(name="loop")):
                return node.attr in _LOOP_NUMBERS
        return False


def _given(tree: nodes.Template) -> Iterator[tuple[str, nodes.Node]]:
    """Each name with each value that it is given; fields of namespaces as `name.field`."""
    for assign in tree.find_all(nodes.Assign):
        for name in _names(assign.target):
            yield name, assign.node
        if isinstance(assign.target, nodes.Name) and _calls(assign.node) == "namespace":
            call = assign.node
            assert isinstance(call, nodes.Call)
            for pair in call.kwargs:
                yield f"{assign.target.name}.{pair.key}", pair.value
    for loop in tree.find_all(nodes.For):
        for name in _names(loop.target):
            yield name, loop.iter
    for scope in tree.find_all(nodes.With):
        for target, value in zip(scope.targets, scope.values, strict=True):
            for name in _names(target):
                yield name, value


def _names(target: nodes.Node) -> Iterator[str]:
    if isinstance(target, nodes.Name):
        yield target.name
    elif isinstance(target, nodes.NSRef):
        yield f"{target.name}.{target.attr}"
    elif isinstance(target, nodes.Tuple):
        for item in target.items:
            yield from _names(item)


def _calls(node: nodes.Node) -> str | None:
    """The name that `node` is a call of."""
    called = node.node if isinstance(node, nodes.Call) else None
    return called.name if isinstance(called, nodes.Name) else None
