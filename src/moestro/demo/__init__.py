"""The embedded demo model: a small, real mixture-of-experts model with an MTP block."""

from __future__ import annotations

from pathlib import Path

__all__ = ["card_path", "model_path"]


def model_path() -> Path:
    """The GGUF file that ships with moestro."""
    return Path(__file__).parent / "moestro-demo.gguf"


def card_path() -> Path:
    """The model card: how it was made, what it can do, what it cannot."""
    return Path(__file__).parent / "CARD.md"
