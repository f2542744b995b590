"""Words from a file, a driver or another program that end up on a person's screen."""

from __future__ import annotations

import unicodedata

_STRANGE = "\N{REPLACEMENT CHARACTER}"


def plain(text: str) -> str:
    """`text` without anything that a terminal would obey or that turns its direction round; line
    breaks stay."""
    if text.isprintable():
        return text
    return "".join(character if _is_plain(character) else _STRANGE for character in text)


def shown(text: str, most: int = 60) -> str:
    """`text` on one line, plain, and not longer than `most` characters."""
    clean = plain(text[: most + 1]).replace("\n", _STRANGE)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _is_plain(character: str) -> bool:
    # Blanks of other widths are not printable in Python's sense.
    return character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs"
