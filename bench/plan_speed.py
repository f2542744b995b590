"""How long a plan takes, as a whole process: Python, header, dry run, search, output.

    python -m bench.plan_speed [--runs 7]

The model is Qwen3.6-35B-A3B's header, 248,320 tokens with it, in a sparse file. Runs of the kinds
are interleaved; printed are medians and the fastest run of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.shapes import PUBLISHED, write_header

KINDS = {
    "help": ["--help"],
    "plan, this machine": ["plan", "MODEL"],
    "plan, rtx-4090": ["plan", "MODEL", "--hardware", "rtx-4090"],
    "plan, rtx-4090, --json": ["plan", "MODEL", "--hardware", "rtx-4090", "--json"],
}


def seconds(arguments: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moestro", *arguments], capture_output=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    taken: dict[str, list[float]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        model = write_header(PUBLISHED["Qwen3.6-35B-A3B"](), Path(folder) / "model.gguf")
        for _ in range(runs):
            for name, arguments in KINDS.items():
                filled = [str(model) if word == "MODEL" else word for word in arguments]
                taken[name].append(seconds(filled))
    summary = {
        name: {
            "median_seconds": round(statistics.median(values), 3),
            "fastest_seconds": round(min(values), 3),
        }
        for name, values in taken.items()
    }
    print(json.dumps({"runs": runs, "load": os.getloadavg()[0], **summary}, indent=1))


if __name__ == "__main__":
    main()
