"""Words from a file that end up on a person's screen."""

from __future__ import annotations


def shown(text: str, most: int = 60) -> str:
    """`text` without anything that a terminal would obey, and not longer than `most` characters."""
    clean = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in text[: most + 1]
    )
    return clean if len(clean) <= most else clean[: most - 1] + "…"
