"""Where the measured kernels of this machine are kept, for the benchmarks of speed."""

from __future__ import annotations

import json
from pathlib import Path

from moestro.planning.rates import KernelRates

RESULTS = Path(__file__).parent / "results"


def rates_path(threads: int) -> Path:
    return RESULTS / f"kernel_rates_{threads}_threads.json"


def load_rates(threads: int) -> KernelRates | None:
    path = rates_path(threads)
    return KernelRates.from_json(json.loads(path.read_text())) if path.exists() else None
