"""Strings stay strings for readers of YAML 1.1 and of 1.2."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moestro.export.yaml_text import yaml_text

# What the core schema of YAML 1.2 takes for something else where it stands without quotes.
CORE = re.compile(
    r"null|Null|NULL|~|true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


@pytest.mark.parametrize("text", ["1e3", "0o17", "1:30", "y", "no", "On", "", "-", "a: b", "#a"])
def test_what_could_be_something_else_is_quoted(text: str) -> None:
    assert '"' in yaml_text({"key": text})


@pytest.mark.parametrize("text", ["--fit", "/srv/m.gguf", "unless-stopped", "a.io/b:server-b1"])
def test_what_cannot_is_not(text: str) -> None:
    assert yaml_text({"key": text}) == f"key: {text}\n"


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_every_text_comes_back(text: str) -> None:
    written = yaml_text({"key": [text, {"inner": text}]})
    assert yaml.safe_load(written) == {"key": [text, {"inner": text}]}
    plain = re.search(r"- ([^\"\n][^\n]*)\n", written)
    assert plain is None or not CORE.fullmatch(plain[1])


def test_a_value_that_appears_twice_is_written_twice() -> None:
    twice = {"a": 1}
    assert yaml_text({"one": twice, "two": twice}) == "one:\n  a: 1\ntwo:\n  a: 1\n".replace(
        "a:", '"a":'
    )
