"""Where the benches keep what they fetched, built and made: gigabytes, outside of the tree.

MOESTRO_BENCH_CACHE names another folder than the default, `~/.cache/moestro-bench`.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder, made if it is not there."""
    named = os.environ.get("MOESTRO_BENCH_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "moestro-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
