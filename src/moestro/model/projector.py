"""Finds the projector (`mmproj`) file that makes a language model see or hear."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from moestro.model.spec import Projector


def is_projector_name(file_name: str) -> bool:
    """`mmproj-….gguf`, `model-mmproj-f16.gguf`, …"""
    lower = file_name.lower()
    return lower.endswith(".gguf") and "mmproj" in lower


def choose_projector(names: Iterable[str], model_name: str) -> str | None:
    """Of several projectors the one whose name shares the longest beginning with the model's,
    then the most precise; None if there is none."""
    candidates = sorted(name for name in names if is_projector_name(name))
    if not candidates:
        return None

    def fitness(name: str) -> tuple[int, bool, bool]:
        stem = name.lower().replace("mmproj-", "").replace("mmproj", "")
        shared = 0
        for mine, theirs in zip(stem, model_name.lower(), strict=False):
            if mine != theirs:
                break
            shared += 1
        return shared, "bf16" in name.lower(), "f16" in name.lower()

    return max(candidates, key=fitness)


def find_projector(model: Path) -> Projector | None:
    """The projector in the folder of `model`."""
    try:
        names = [entry.name for entry in model.parent.iterdir() if is_projector_name(entry.name)]
    except OSError:
        return None  # the folder may not be listed; then there is nothing to show
    chosen = choose_projector(names, model.name)
    if chosen is None or chosen == model.name:
        return None
    path = model.parent / chosen
    try:
        size_bytes = path.stat().st_size
    except OSError:
        size_bytes = None
    return Projector(str(path), size_bytes)
