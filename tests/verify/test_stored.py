from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.findings import Finding, Severity
from moestro.hardware import store
from moestro.model.identity import content_digests, sampled_digest
from moestro.verify.stored import VERDICTS, keep_verdict, verdict_of

WORSE = Finding(Severity.FAIL, "router-differs", "The router differs", "12 rows", "Another file.")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    path = tmp_path / "model.gguf"
    path.write_bytes(random.Random(7).randbytes(3 << 20))
    return path


def keep(path: Path, verdict: str, tokens: int = 512) -> None:
    keep_verdict(
        [path],
        verdict,
        reference="ref.gguf",
        policy="built in",
        tokens=tokens,
        digests=content_digests([path]),
        findings=[WORSE] if verdict == "fail" else [],
    )


def test_nothing_is_known_of_a_new_file(model: Path) -> None:
    assert verdict_of([model]) is None


def test_the_last_verdict_counts(model: Path) -> None:
    keep(model, "fail")
    found = verdict_of([model])
    assert found is not None
    assert (found.verdict, found.findings) == ("fail", (WORSE,))
    keep(model, "pass")
    again = verdict_of([model])
    assert again is not None
    assert again.verdict == "pass"


def test_a_fail_stands_until_as_many_tokens_say_otherwise(model: Path) -> None:
    keep(model, "fail", tokens=1024)
    for verdict, tokens, standing in (
        ("pass", 512, "fail"),
        ("warn", 1024, "warn"),
        ("pass", 512, "pass"),
        ("fail", 512, "fail"),
    ):
        keep(model, verdict, tokens)
        found = verdict_of([model])
        assert found is not None
        assert found.verdict == standing


def test_what_failed_is_kept_before_what_warned(model: Path) -> None:
    doubts = [replace(WORSE, severity=Severity.WARN, code=f"doubt-{n}") for n in range(20)]
    keep_verdict(
        [model], "fail", reference="r", policy="p", tokens=1, digests=(), findings=[*doubts, WORSE]
    )
    found = verdict_of([model])
    assert found is not None
    assert found.findings[0] == WORSE


def test_a_verdict_follows_its_content(model: Path, tmp_path: Path) -> None:
    keep(model, "fail")
    copy = tmp_path / "renamed.gguf"
    copy.write_bytes(model.read_bytes())
    os.utime(copy, (1, 1))
    found = verdict_of([copy])
    assert found is not None
    assert found.verdict == "fail"


def between_samples(content: bytes) -> bytes:
    """Another content that the samples do not see."""
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_sound_file_is_not_blamed_for_one_that_looks_alike(model: Path) -> None:
    keep(model, "fail")
    before = sampled_digest([model])
    model.write_bytes(between_samples(model.read_bytes()))
    os.utime(model, (1, 1))
    assert sampled_digest([model]) == before
    assert verdict_of([model]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content + b"x",
        lambda content: content[: 2 << 20] + bytes(1 << 20),
    ],
)
def test_another_content_is_another_model(model: Path, change: Callable[[bytes], bytes]) -> None:
    keep(model, "fail")
    model.write_bytes(change(model.read_bytes()))
    assert verdict_of([model]) is None


def test_damaged_entries_are_left_out(model: Path) -> None:
    keep(model, "fail")

    def broken(stored: list[object]) -> list[object]:
        return ["nonsense", {"verdict": 1}, {**stored[0], "files": [[1]]}, *stored]  # type: ignore

    store.update(VERDICTS, sampled_digest([model]), broken)
    found = verdict_of([model])
    assert found is not None
    assert found.verdict == "fail"
