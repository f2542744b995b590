"""Texts as they were last agreed to. `MOESTRO_WRITE_GOLDEN=1 pytest tests/export` writes them anew,
for a person to look at the difference."""

from __future__ import annotations

import os
from pathlib import Path

from moestro.export.target import Exported

FOLDER = Path(__file__).parent / "golden"


def check(target: str, plan: str, exported: Exported) -> None:
    """Every file of `exported`, and what it says beside them, is as agreed."""
    beside = [
        f"not said: {one.setting} ({one.planned}): {one.instead}\n" for one in exported.unexpressed
    ]
    beside += [f"use: {step}\n" for step in exported.use]
    texts = {file.name: file.text for file in exported.files} | {"beside.txt": "".join(beside)}
    folder = FOLDER / target / plan
    if os.environ.get("MOESTRO_WRITE_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    agreed = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}
    assert texts == agreed
