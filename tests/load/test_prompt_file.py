"""Prompts that users bring, and files that are none."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from moestro.errors import UsageError
from moestro.load import from_file


def turns(path: Path, seed: int = 0, count: int = 4):
    return [one.turns[0] for one in islice(from_file(path).sessions(seed, 1.0), count)]


def test_lines_of_text_in_their_order_and_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("first Ä\n\n  second\nthird")
    said = [turn.messages[0] for turn in turns(path)]
    assert [one["content"] for one in said] == ["first Ä", "second", "third", "first Ä"]
    assert {one["role"] for one in said} == {"user"}
    assert turns(path, seed=1)[0].messages[0]["content"] == "second"
    scenario = from_file(path, output_tokens=7)
    assert (scenario.name, scenario.output_tokens) == ("prompts.txt", 7)


def test_objects(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text"}]}]
    lines = [{"prompt": "p"}, {"messages": messages, "max_tokens": 5, "id": "kept out"}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = turns(path, count=2)
    assert (first.messages, first.max_tokens) == (({"role": "user", "content": "p"},), 128)
    assert (list(second.messages), second.max_tokens, dict(second.options)) == (messages, 5, {})


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "5",
        '{"prompt": 5}',
        '{"prompt": " "}',
        '{"messages": []}',
        '{"messages": "hi"}',
        '{"messages": [5]}',
        '{"messages": [{"role": "boss", "content": "x"}]}',
        '{"messages": [{"role": ["user"], "content": "x"}]}',
        '{"messages": [{"role": "user"}]}',
        '{"prompt": "p", "max_tokens": 0}',
        '{"prompt": "p", "max_tokens": true}',
        '{"prompt": "p", "max_tokens": "9"}',
        '{"prompt": "p", "max_tokens": 99999999999}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:40],
)
def test_lines_that_are_no_request(tmp_path: Path, line: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(UsageError, match=r"Line 2 of p\.jsonl"):
        from_file(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00a\n"])
def test_files_without_prompts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        from_file(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UsageError, match="cannot be read"):
            from_file(path)


@pytest.mark.parametrize(
    ("bound", "value"),
    [("_MOST_LINE_BYTES", 20), ("_MOST_FILE_BYTES", 50), ("_MOST_PROMPTS", 3)],
)
def test_bounds(tmp_path: Path, monkeypatch: Any, bound: str, value: int) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a line of text that is long\n" * 5)
    from_file(path)
    monkeypatch.setattr(f"moestro.load.prompt_file.{bound}", value)
    with pytest.raises(UsageError):
        from_file(path)
