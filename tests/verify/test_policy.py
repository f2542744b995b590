from __future__ import annotations

from pathlib import Path

import pytest

from moestro.errors import UsageError
from moestro.findings import Severity
from moestro.verify.policy import Limit, built_in, with_file

ABOVE = Limit("kld_mean", "above", 0.1, 0.5, "c", "t", "w", "s", "f")
BELOW = Limit("top1_agreement", "below", 0.9, 0.7, "c", "t", "w", "s", "f")


@pytest.mark.parametrize(
    ("limit", "value", "low", "high", "expected"),
    [
        (ABOVE, 0.05, 0.0, 0.09, None),
        (ABOVE, 0.3, 0.05, 0.7, None),  # the interval reaches below the limit: noise is no alarm
        (ABOVE, 0.6, 0.05, 1.7, Severity.UNKNOWN),  # but this wants more text
        (ABOVE, 0.3, 0.11, 0.7, Severity.WARN),
        (ABOVE, 0.6, 0.11, 0.7, Severity.WARN),
        (ABOVE, 0.6, 0.51, 0.7, Severity.FAIL),
        (ABOVE, float("nan"), float("nan"), float("nan"), Severity.UNKNOWN),
        (BELOW, 0.8, 0.6, 0.95, None),
        (BELOW, 0.6, 0.1, 0.95, Severity.UNKNOWN),
        (BELOW, 0.8, 0.6, 0.85, Severity.WARN),
        (BELOW, 0.65, 0.6, 0.69, Severity.FAIL),
    ],
)
def test_only_a_whole_interval_beyond_a_limit_counts(
    limit: Limit, value: float, low: float, high: float, expected: Severity | None
) -> None:
    assert limit.judge(value, low, high) is expected


def test_every_built_in_limit_says_why_and_whence() -> None:
    for limit in built_in().limits.values():
        assert limit.why
        assert limit.source
        assert limit.fix
        assert limit.worse in ("above", "below")
        if limit.warn is not None and limit.fail is not None:
            assert (limit.warn < limit.fail) == (limit.worse == "above")


def test_a_file_sets_some_limits_otherwise(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("[limits.kld_mean]\nwarn = 0.2\nfail = false\n")
    policy = with_file(built_in(), own)
    assert (policy.limits["kld_mean"].warn, policy.limits["kld_mean"].fail) == (0.2, None)
    assert policy.limits["kld_mean"].source == "set in mine.toml"
    assert policy.name == "mine.toml"
    others = {name: limit for name, limit in policy.limits.items() if name != "kld_mean"}
    assert others == {k: v for k, v in built_in().limits.items() if k != "kld_mean"}


@pytest.mark.parametrize(
    "text",
    [
        "limits = 3",
        "[limits]\nkld_mean = 3",
        "[limits.unheard_of]\nwarn = 1",
        "[limits.kld_mean]\nworse = 'below'",
        "[limits.kld_mean]\nwarn = 'much'",
        "[limits.kld_mean]\nwarn = true",
        "[limits.kld_mean]\nwarn = nan",
        "[other]\nx = 1",
        "not toml at all",
        "[limits.kld_mean]\nwarn = 1" + "0" * 5000,
        "[limits.kld_mean]\nwarn = 1" + "0" * 400,
        "\ud800",
        "a = " + "[" * 100_000,
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UsageError) as error:
        with_file(built_in(), own)
    assert "mine.toml" in error.value.sentence
    assert error.value.hint


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        with_file(built_in(), tmp_path / "none.toml")
