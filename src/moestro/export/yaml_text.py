"""YAML that every reader understands alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_PLAIN = re.compile(r"(--)?[A-Za-z/][A-Za-z0-9_./-]+(:[a-z][a-z0-9-]+)?", re.ASCII)
_RESERVED = frozenset(("true", "false", "yes", "no", "on", "off", "null"))
"""What stays without quotes, and what does not although it looks it. Readers of YAML 1.1 and 1.2
disagree on what `1e3`, `0o17`, `1:30` or `y` are, so whatever could be a number is quoted."""

_WIDE = 1 << 16
"""Folded lines are hard to compare and to copy."""


def yaml_text(*documents: dict[str, Any], comments: Sequence[str] = ()) -> str:
    """The documents as block YAML in their own order, below `comments`, one a line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # the items of a list below its key

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, text)
    head = "".join(f"# {line}\n" if line else "#\n" for line in comments)
    body = yaml.dump_all(
        documents,
        Dumper=Dumper,
        allow_unicode=True,
        default_flow_style=False,
        explicit_start=len(documents) > 1,
        sort_keys=False,
        width=_WIDE,
    )
    return head + body
