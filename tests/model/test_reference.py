"""What MODEL may be on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from moestro.errors import UsageError
from moestro.model import Demo, Folder, HubRef, LocalFile, Url, parse_reference


def test_kinds(tmp_path: Path) -> None:
    assert parse_reference("demo") == Demo()
    assert parse_reference("./demo") == LocalFile(Path("demo"))
    assert parse_reference(str(tmp_path)) == Folder(tmp_path)
    assert parse_reference(str(tmp_path / "m.gguf")) == LocalFile(tmp_path / "m.gguf")
    assert parse_reference("hf:owner/repo") == HubRef("owner/repo")
    assert parse_reference("hf:owner/re.po-1:q4_k_m") == HubRef("owner/re.po-1", "q4_k_m")
    assert parse_reference("https://host/a.gguf") == Url("https://host/a.gguf")
    assert parse_reference("HTTP://host:81/a.gguf") == Url("HTTP://host:81/a.gguf")
    assert parse_reference("~") == Folder(Path.home())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "a\0b",
        "hf:",
        "hf:owner",
        "hf:owner/",
        "hf:/repo",
        "hf:a/b/c",
        "hf:a/b:",
        "hf:a/..",
        "hf:../../etc",
        "hf:a/b:x/y",
        "http://",
        "https:///x.gguf",
        "http://host:notaport/x",
        "http://a b/x",
        "http://user:secret@host/x.gguf",
        "ftp://host/x.gguf",
        "s3://bucket/x.gguf",
    ],
)
def test_nonsense(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert caught.value.hint


def test_a_hub_reference_prints_as_it_is_written() -> None:
    assert str(HubRef("a/b")) == "hf:a/b"
    assert str(HubRef("a/b", "Q8_0")) == "hf:a/b:Q8_0"
