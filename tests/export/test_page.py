"""The guide shows what the program does now."""

from __future__ import annotations

from scripts.export_page import PAGE, written


def test_the_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "run: python -m scripts.export_page"
