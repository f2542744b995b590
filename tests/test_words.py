"""Words from elsewhere steer no terminal, wherever they end up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moestro.errors import MoestroError
from moestro.findings import Finding, Severity, worst_first
from moestro.words import plain, shown

STEERING = "\x00\x07\x08\x0d\x1b\x7f\x85\x9b\u202e\u2066\u2069\ufeff\ud800"


@given(st.text(alphabet=st.characters() | st.sampled_from(STEERING)))
def test_nothing_that_steers_is_left(text: str) -> None:
    left = plain(text)
    assert len(left) == len(text)
    assert not set(left) & set(STEERING)
    assert plain(left) == left


def test_honest_words_stay() -> None:
    for words in ("Crème brûlée – 你好 → „quoted“", "two\nlines", "no\u00a0break", "😀 ∑ ≤"):
        assert plain(words) == words


@given(st.text(), st.integers(1, 80))
def test_what_is_shown_is_one_short_line(text: str, most: int) -> None:
    line = shown(text, most)
    assert len(line) <= most
    assert "\n" not in line


def test_findings_and_errors_are_plain() -> None:
    finding = Finding(Severity.WARN, "code", "a\x1b[31m", "b\x07\nc", "d\u202e")
    assert (finding.title, finding.evidence, finding.fix) == ("a�[31m", "b�\nc", "d�")
    error = MoestroError("a\x1b]0;x\x07", hint="\x9b2J")
    assert "\x1b" not in error.sentence
    assert "\x9b" not in str(error.hint)


def test_the_worst_stands_first_and_equals_keep_their_order() -> None:
    mixed = [
        Finding(severity, f"{severity}-{number}", "title")
        for number in range(2)
        for severity in (Severity.OK, Severity.UNKNOWN, Severity.FAIL, Severity.WARN)
    ]
    assert [finding.code for finding in worst_first(mixed)] == [
        "fail-0", "fail-1", "warn-0", "warn-1", "unknown-0", "unknown-1", "ok-0", "ok-1",
    ]  # fmt: skip
