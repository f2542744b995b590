"""The reference page says what the commands say."""

from __future__ import annotations

from scripts.cli_reference import PAGE, render


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run python scripts/cli_reference.py"
